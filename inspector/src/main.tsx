import './style.css';
import { createRoot } from 'react-dom/client';
import { App } from './app.tsx';
import { store } from './store.ts';
import { applyTheme } from './theme.ts';

applyTheme();
void store.start();
const root = document.getElementById('root');
if (root !== null) createRoot(root).render(<App />);
