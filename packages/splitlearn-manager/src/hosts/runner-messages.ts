import type { ModelInfo, PlainError } from '@splitlearn/comm';
import type { HostOptions } from './model-host.js';

// What a server and the process of a model (its runner) say to each other beside the requests, which go by gRPC.

export type ToRunner =
  | { readonly type: 'start'; readonly options: HostOptions; readonly address: string }
  | { readonly type: 'memory' }
  /** Finish what is under way within `graceMs` milliseconds, then end. */
  | { readonly type: 'stop'; readonly graceMs: number };

export type FromRunner =
  /** The model is loaded and served at the address. */
  | { readonly type: 'ready'; readonly info: Omit<ModelInfo, 'name' | 'state'> }
  | { readonly type: 'failed'; readonly error: PlainError }
  | { readonly type: 'memory'; readonly residentBytes: number };
