/** Lays out one large graph, so that the page does not stand still meanwhile. */
import { type GraphShape, placeGraph } from './plan.ts';

self.onmessage = ({ data }: MessageEvent<GraphShape>): void => self.postMessage(placeGraph(data));
