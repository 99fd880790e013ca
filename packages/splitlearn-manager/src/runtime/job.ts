import type { ClientQueue } from './client-queue.js';

/** The classes of requests, the most urgent first. */
export const PRIORITIES = ['high', 'normal', 'low'] as const;

/** What a request's metadata `splitlearn-priority` may be; `normal` where it is absent. */
export type Priority = (typeof PRIORITIES)[number];

/** What the scheduler needs to know of a request. */
export interface JobOptions<Payload> {
  readonly payload: Payload;
  readonly priority: Priority;
  /** Whose it is; clients share the model evenly. */
  readonly client: string;
  /** What is computed at once; a stream holds the model from its first piece to its last. */
  readonly kind: 'run' | 'stream';
  /** How much it counts against its client and priority; 1 where nobody has looked. */
  readonly rows: number;
  /** Jobs of the same group can be computed in one run. Absent: runs alone. */
  readonly group?: string | undefined;
  /** When its time is up, in milliseconds of the scheduler's clock; `Infinity` for never. */
  readonly deadlineMs: number;
}

/** A request on its way through the scheduler. */
export class Job<Payload> {
  readonly payload: Payload;
  readonly priority: Priority;
  readonly client: string;
  readonly kind: 'run' | 'stream';
  readonly rows: number;
  readonly group: string | undefined;
  readonly deadlineMs: number;
  arrivedMs = 0;
  /** The queue that it waits in, with its neighbours there. */
  queue: ClientQueue<Payload> | undefined;
  previous: Job<Payload> | undefined;
  next: Job<Payload> | undefined;

  constructor({ payload, priority, client, kind, rows, group, deadlineMs }: JobOptions<Payload>) {
    this.payload = payload;
    this.priority = priority;
    this.client = client;
    this.kind = kind;
    this.rows = rows;
    this.group = group;
    this.deadlineMs = deadlineMs;
  }
}
