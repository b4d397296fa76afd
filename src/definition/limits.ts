/** Bounds of a workflow file. Each is checked when it is saved. */

/** Of the file's text, and of its value as JSON: aliases of YAML must not grow beyond what a file may be. */
export const sizeMaxBytes = 2 ** 20;
/** Lists and objects within each other: keeps what walks a definition from overflowing the stack. */
export const depthMax = 64;
/** Nodes of a workflow with all its bodies; the contract's. */
export const nodesMax = 2_000;
