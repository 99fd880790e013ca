import { type Backend, installedBackends } from './backends.js';
import { type CgroupMemory, cgroupAvailableBytes, cgroupMemory, cgroupProcessors } from './cgroup.js';
import { type GpuInfo, queryGpus } from './gpu.js';
import { type Machine, thisMachine } from './machine.js';
import { type MemoryStall, memoryStall } from './memory-stall.js';
import { processTreeBytes } from './process-memory.js';

/** Everything that is read from the machine. Injected, so that tests of memory limits need no memory. */
export interface ResourceProbes {
  /** Memory that this process and its children may use: the container's limit, or the machine's memory. In bytes. */
  totalMemoryBytes(): number;
  /** Memory that could still be taken without swapping, in bytes. What models that are loaded use is taken. */
  availableMemoryBytes(): number;
  /** Threads that can compute at the same time. */
  cores(): number;
  /** The limits of the containers around this process; empty where there are none, or not by cgroup v2. */
  cgroupMemory(): readonly CgroupMemory[];
  /** How long tasks wait for memory; `undefined` where the kernel does not say. */
  memoryStall(): MemoryStall | undefined;
  /** The GPUs of NVIDIA. None where `nvidia-smi` is not there or does not answer. */
  gpus(): Promise<readonly GpuInfo[]>;
  /** What ONNX Runtime can compute on here, and what each lacks. Does not load it. */
  backends(): readonly Backend[];
  /** Resident memory of a process and its descendants, in bytes; `undefined` where it is not known. */
  processTreeBytes(pid: number): Promise<number | undefined>;
}

/** The probes of a machine. */
export function probesOf(machine: Machine): ResourceProbes {
  const containers = () => (machine.platform === 'linux' ? cgroupMemory(machine) : []);
  return {
    totalMemoryBytes() {
      const total = machine.totalMemoryBytes();
      // For cgroup v1 and other systems. 0 or an absurd number where there is no container.
      const constrained = machine.constrainedMemoryBytes();
      return Math.min(
        total,
        ...(constrained > 0 ? [constrained] : []),
        ...containers().map(({ limitBytes }) => limitBytes),
      );
    },
    availableMemoryBytes() {
      if (machine.platform !== 'linux') return machine.availableMemoryBytes();
      const ofMachine = memAvailable(machine.readText('/proc/meminfo')) ?? machine.availableMemoryBytes();
      const levels = containers();
      const constrained = machine.constrainedMemoryBytes();
      const v1 = levels.length === 0 && constrained > 0 && constrained < machine.totalMemoryBytes();
      // For cgroup v1 Node.js takes the contents of files for used, which is on the safe side.
      return Math.min(ofMachine, ...(v1 ? [machine.availableMemoryBytes()] : levels.map(cgroupAvailableBytes)));
    },
    cores() {
      const shares = machine.platform === 'linux' ? cgroupProcessors(machine) : Number.POSITIVE_INFINITY;
      return Math.max(1, Math.floor(Math.min(machine.processors(), shares)));
    },
    cgroupMemory: containers,
    memoryStall: () => (machine.platform === 'linux' ? memoryStall(machine) : undefined),
    gpus: () => queryGpus(machine),
    backends: () => installedBackends(machine),
    processTreeBytes: (pid) => processTreeBytes(machine, pid),
  };
}

export const machineProbes: ResourceProbes = probesOf(thisMachine);

/** https://docs.kernel.org/filesystems/proc.html: memory for new programs without swapping. */
function memAvailable(meminfo: string | undefined): number | undefined {
  const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo ?? '')?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}
