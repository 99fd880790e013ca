import type { ModelCall } from '@splitlearn/comm';

/** A model's call with nothing special about it, but for what is given. */
export function modelCall(call: Partial<ModelCall> = {}): ModelCall {
  return { parameters: {}, outputs: [], signal: new AbortController().signal, requestId: 'test', ...call };
}
