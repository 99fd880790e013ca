import type { EventEmitter } from 'node:events';
import { basename } from 'node:path';
import type { AsyncModelManager } from '../models/async-model-manager.js';
import type { ManagerEvents } from '../models/manager-events.js';
import type { ResolvedModelConfig } from '../models/model-config.js';
import type { ManagedModelInfo } from '../models/model-info.js';
import { CATALOG } from '../sources/catalog.js';
import type { LoadProgress } from './admin-actions.js';

/**
 * Loads a model and tells of its progress: the downloads of its repository, and the states that it enters.
 *
 * @throws ManagerError what `loadModel` throws.
 */
export async function loadWithProgress(
  modelManager: Pick<AsyncModelManager, 'loadModel'> & EventEmitter<ManagerEvents>,
  config: ResolvedModelConfig,
  onProgress: (progress: LoadProgress) => void,
): Promise<ManagedModelInfo> {
  const { source } = config;
  const entry = CATALOG.get(source);
  const repository = entry && 'repository' in entry ? entry.repository : source;
  // What a model will be called is settled when its files have been found: for a path, it is that of the file.
  const names =
    config.modelId === undefined ? [source, basename(source).replace(/\.(onnx|[cm]?js)$/, '')] : [config.modelId];
  const onDownload = (...[progress]: ManagerEvents['download']) => {
    if (progress.repository === repository) onProgress({ type: 'download', ...progress });
  };
  const onState = (...[{ modelId, state }]: ManagerEvents['state']) => {
    if (names.includes(modelId)) onProgress({ type: 'state', modelId, state });
  };
  modelManager.on('download', onDownload).on('state', onState);
  try {
    return await modelManager.loadModel(config);
  } finally {
    modelManager.off('download', onDownload).off('state', onState);
  }
}
