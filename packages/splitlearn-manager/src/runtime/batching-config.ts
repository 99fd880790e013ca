import { z } from 'zod';

/**
 * How requests of a model are put together into one run. For models that have a row for each of something along the
 * first axis of all their inputs and outputs (a batch dimension) and compute each row by itself, whatever rows it comes
 * with. Nothing can check the latter.
 */
export const BatchingConfig = z
  .strictObject({
    /** The most rows of one run. A request that has more by itself runs alone. */
    maxBatchSize: z.int().min(1).max(65_536),
    /**
     * Milliseconds that a request may wait for others while the model has nothing else to do. Default 0: none waits for
     * others, and what arrives while the model computes is computed together next. More is for models that use their
     * hardware badly with few rows, where throughput matters more than the time of a single request.
     */
    maxQueueDelayMs: z.number().min(0).max(10_000).default(0),
    /**
     * Numbers of rows that the model computes best. A run has the largest of them that can be had, and while there are
     * fewer rows than the smallest, those there are wait for `maxQueueDelayMs`. Default: any number is as good.
     */
    preferredBatchSizes: z.array(z.int().min(1)).min(1).max(64).optional(),
  })
  .refine(({ maxBatchSize, preferredBatchSizes = [] }) => preferredBatchSizes.every((size) => size <= maxBatchSize), {
    path: ['preferredBatchSizes'],
    error: 'must not be larger than maxBatchSize',
  });

/** A model's `batching` as it is written: whatever has a default may be left out. */
export type BatchingConfig = z.input<typeof BatchingConfig>;

/** The same with all defaults filled in. */
export type ResolvedBatching = z.output<typeof BatchingConfig>;
