import { posix } from 'node:path';
import type { Machine } from './machine.js';

/** What ONNX Runtime computes on, by its own names. */
export type BackendName = 'cpu' | 'cuda' | 'coreml' | 'dml' | 'webgpu';

/** Something that ONNX Runtime can compute on here. */
export interface Backend {
  readonly name: BackendName;
  /** Why it cannot be used as it is, and what to do; absent where it can. */
  readonly problem?: string;
}

/**
 * What the builds of onnxruntime-node 1.30 have in them: the table of its README.md, which is also what its
 * `listSupportedBackends()` answers. Asking it would load the native library into the
 * server's process.
 */
const BUILDS: Readonly<Record<string, readonly BackendName[]>> = {
  'win32/x64': ['cpu', 'webgpu', 'dml'],
  'win32/arm64': ['cpu', 'webgpu', 'dml'],
  'linux/x64': ['cpu', 'webgpu', 'cuda'],
  'linux/arm64': ['cpu'],
  'darwin/x64': ['cpu', 'webgpu', 'coreml'],
  'darwin/arm64': ['cpu', 'webgpu', 'coreml'],
};

/** The files that a backend needs beside ONNX Runtime itself. CUDA's are too large for the package: its install script downloads them. */
const FILES: Readonly<Partial<Record<BackendName, string>>> = {
  cuda: 'libonnxruntime_providers_cuda.so',
  dml: 'DirectML.dll',
};

/** What ONNX Runtime can compute on here, from the files of `onnxruntime-node`. The processor is always among it. */
export function installedBackends(machine: Machine): readonly Backend[] {
  const build = `${machine.platform}/${machine.architecture}`;
  const folder = machine.runtimeFolder();
  const binaries = folder && posix.join(folder, 'bin/napi-v6', build);
  // Without a build for this platform a module's own code may still compute.
  if (!binaries || !machine.exists(binaries)) return [{ name: 'cpu' }];
  return (BUILDS[build] ?? ['cpu']).map((name): Backend => {
    const file = FILES[name];
    if (file && !machine.exists(posix.join(binaries, file))) {
      const script = 'it comes with the install script of onnxruntime-node, which `npm rebuild onnxruntime-node` runs';
      return { name, problem: `${file} is not installed; ${script}` };
    }
    if (name === 'webgpu' && machine.platform === 'linux' && !hasGraphics(machine))
      return { name, problem: 'there is no graphics device in /dev/dri' };
    return { name };
  });
}

/** On Windows and macOS nothing tells from outside; there is one in practice. */
function hasGraphics({ list }: Machine): boolean {
  return list('/dev/dri').some((name) => name.startsWith('renderD'));
}
