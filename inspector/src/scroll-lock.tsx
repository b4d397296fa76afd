/** Stands in for react-remove-scroll, which radix-ui puts around its dialogs: here nothing behind them scrolls. */
import type { ComponentType, ReactNode, Ref } from 'react';

interface Props {
  as?: ComponentType<Record<string, unknown>>;
  children?: ReactNode;
  ref?: Ref<HTMLElement>;
  allowPinchZoom?: boolean;
  shards?: unknown;
}

export function RemoveScroll({ as: Wrapper, allowPinchZoom: _zoom, shards: _shards, children, ...rest }: Props) {
  if (Wrapper === undefined) return <div {...(rest as object)}>{children}</div>;
  return <Wrapper {...rest}>{children}</Wrapper>;
}
