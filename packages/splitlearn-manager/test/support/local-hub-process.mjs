// Finds a model in a process of its own. Argument: the source.

import { parseModelConfig } from '../../dist/models/model-config.js';
import { locateModel } from '../../dist/sources/locate.js';

const located = await locateModel(parseModelConfig(process.argv[2]), {
  onProgress: ({ bytes }) => process.send?.({ bytes }),
});
process.send?.({ located });
