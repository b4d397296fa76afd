/** Dark, light, or as the system says. */
export type Theme = 'system' | 'dark' | 'light';

const NAME = 'fullstop.theme';

export function theme(): Theme {
  const kept = localStorage.getItem(NAME);
  return kept === 'dark' || kept === 'light' ? kept : 'system';
}

export function applyTheme(next: Theme = theme()): void {
  if (next === 'system') localStorage.removeItem(NAME);
  else localStorage.setItem(NAME, next);
  const { dataset } = document.documentElement;
  if (next === 'system') delete dataset.theme;
  else dataset.theme = next;
}
