import { join } from 'node:path';
import type { ModelInfo, PlainError } from '@splitlearn/comm';
import type { HostOptions } from './model-host.js';

// What a server and the process of a model (its runner) say to each other beside the requests, which go by gRPC.

export type ToRunner =
  | { readonly type: 'start'; readonly options: HostOptions; readonly folder: string }
  | { readonly type: 'memory' }
  | { readonly type: 'stop' };

export type FromRunner =
  /** The model is loaded and served at the address. */
  | { readonly type: 'ready'; readonly info: Omit<ModelInfo, 'name' | 'state'> }
  | { readonly type: 'failed'; readonly error: PlainError }
  | { readonly type: 'memory'; readonly residentBytes: number };

/** Where a runner with that folder is served. The name is short: a socket's path has at most some 100 characters. */
export function socketAddress(folder: string): string {
  return `unix:${join(folder, 's')}`;
}
