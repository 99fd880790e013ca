import { availableParallelism, totalmem } from 'node:os';

/** What the machine has. Injected, so that tests of memory limits need no memory. */
export interface ResourceProbes {
  /** Memory that this process and its children may use: the container's limit, or the machine's memory. In bytes. */
  totalMemoryBytes(): number;
  /** Memory that could still be taken without swapping, in bytes. */
  availableMemoryBytes(): number;
  /** Threads that can compute at the same time. */
  cores(): number;
}

export const machineProbes: ResourceProbes = {
  totalMemoryBytes() {
    // 0 or an absurd number where there is no container.
    const limit = process.constrainedMemory();
    return limit > 0 && limit < totalmem() ? limit : totalmem();
  },
  availableMemoryBytes: () => process.availableMemory(),
  cores: availableParallelism,
};
