/** What to do about an error, by its code. The catalogue itself is docs/errors.md. */
const advice: Record<string, string> = {
  FS_TIMEOUT:
    'It took longer than its timeout. Look in the timeline at what was slow; raise `timeout` if that is fine.',
  FS_LOST:
    'The process that ran it died, and the node may not run again (`rerun: false`). Check what it did, then run again.',
  FS_EXPRESSION: 'An expression of the file could not be evaluated. Compare it with the results of the nodes it reads.',
  FS_FAIL_NODE: 'The file ends it here on purpose, with a fail node.',
  FS_EXHAUSTED: 'The loop reached maxIterations before its condition became false.',
  FS_CHILD_FAILED: 'A child execution failed: open it from the node for its error.',
  FS_CHILD_STOPPED: 'Somebody stopped a child execution. The node can be run again only with a new execution.',
  FS_PARENT_ENDED: 'Its parent ended, and took it along.',
  FS_HTTP_STATUS: 'The service answered with an error. Its body is in the event; if that passes, add `retry`.',
  FS_HTTP_NETWORK:
    'The service could not be reached. Check its address, then run again; `retry` helps with what passes.',
  FS_HTTP_BLOCKED: 'The address is one that http nodes may not call. An admin allows it with FULLSTOP_HTTP_ALLOW.',
  FS_HTTP_TOO_LARGE: 'The answer was larger than a node may keep. Ask the service for less.',
  FS_AI_MODEL: 'The model is not known to the workers. See docs/ai.md for how one is set up.',
  FS_AI_CALL: 'The model could not be asked. Its event has the reason; if that passes, add `retry`.',
  FS_AI_OUTPUT: 'The model gave something else than the schema asks for. Loosen the schema, or add `retry`.',
  FS_SECRET: 'A secret could not be resolved where the node ran. See docs/secrets.md.',
  FS_CONTAINER_EXIT: 'The container ended with an error: see Logs for what it printed.',
  FS_CONTAINER_OUTPUT: 'The container printed something that is no output: see Logs.',
  FS_CONTAINER_IMAGE: 'The image is not on the allow-list of the workers.',
  FS_CONTAINER_ENGINE: 'The worker could not reach its container engine. Look at the worker.',
};

export function adviceOf(code: string | null): string {
  return (code === null ? undefined : advice[code]) ?? 'The events tell how it came to this.';
}
