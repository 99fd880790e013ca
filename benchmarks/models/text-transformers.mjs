// transformers.js as one uses it without a server, in a process of its own.
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { answer } from './processes.mjs';
import { SESSION_OPTIONS } from './session-options.mjs';
import { PROMPTS, TOKENS } from './text-works.mjs';

process.env.ORT_DISABLE_TELEMETRY = '1'; // as the manager does
const manager = new URL('../../packages/splitlearn-manager/', import.meta.url);
// The very copy that the manager runs.
const library = createRequire(manager).resolve('@xenova/transformers');
const { AutoModelForCausalLM, AutoTokenizer, TextStreamer, env } = await import(pathToFileURL(library).href);

const folder = fileURLToPath(new URL('models/tiny-gpt2', manager));
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const model = await AutoModelForCausalLM.from_pretrained(folder, {
  dtype: 'fp32',
  device: 'cpu',
  session_options: SESSION_OPTIONS,
});

answer({
  generate: () => generate(() => undefined),
  stream: () => generate(() => new TextStreamer(tokenizer, { skip_prompt: true, callback_function() {} })),
});

async function generate(newStreamer) {
  const texts = [];
  const beganMs = performance.now();
  for (const prompt of PROMPTS) {
    const inputs = tokenizer(prompt);
    const streamer = newStreamer();
    const output = await model.generate({
      ...inputs,
      max_new_tokens: TOKENS,
      do_sample: false,
      ...(streamer && { streamer }),
    });
    const promptTokens = inputs.input_ids.dims[1];
    const tokens = Array.from(output.data.slice(promptTokens), Number);
    if (!streamer) tokenizer.decode(tokens, { skip_special_tokens: true });
    texts.push(tokens);
  }
  return { ms: performance.now() - beganMs, texts };
}
