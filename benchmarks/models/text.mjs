// How fast text comes from a managed server, against transformers.js in one's own process.
import { isDeepStrictEqual } from 'node:util';
import { median } from '../support.mjs';
import { startProcess } from './processes.mjs';
import { atLeast, short } from './report.mjs';
import { PROMPTS, TOKENS } from './text-works.mjs';

const VARIANTS = {
  'generate, process': { isolation: 'process', ask: 'generate' },
  'generate, thread': { isolation: 'thread', ask: 'generate' },
  'infer, process': { isolation: 'process', ask: 'infer' },
  'infer, thread': { isolation: 'thread', ask: 'infer' },
  'transformers.js, streamer': { ask: 'stream' },
  'transformers.js': { ask: 'generate' },
};
const PEERS = ['transformers.js, streamer', 'transformers.js'];
const WARM_UPS = 10;

export async function measure({ rounds, say }) {
  const started = [];
  const start = async (...given) => {
    const child = await startProcess(...given);
    started.unshift(child);
    return child;
  };
  const results = Object.fromEntries(Object.keys(VARIANTS).map((name) => [name, []]));
  let expected;
  try {
    const peers = { undefined: await start('./text-transformers.mjs') };
    for (const isolation of ['process', 'thread']) {
      const server = await start('./server.mjs', [{ source: 'tiny-gpt2', isolation, threads: 1 }], {});
      peers[isolation] = await start('./text-client.mjs', await server.ask('address'));
    }
    for (let round = -WARM_UPS; round < rounds; round++) {
      if (round >= 0) say(`round ${round + 1}`);
      const names = Object.keys(VARIANTS);
      for (const name of round % 2 === 0 ? names : names.toReversed()) {
        const { isolation, ask } = VARIANTS[name];
        const { ms, texts } = await peers[isolation].ask(ask);
        expected ??= texts;
        if (!isDeepStrictEqual(texts, expected)) throw new Error(`${name} generates another text`);
        if (round >= 0) results[name].push((texts.flat().length / ms) * 1_000);
      }
    }
  } finally {
    for (const child of started) await child.stop();
  }

  const ratio = (name, peer) => median(results[name].map((perSecond, round) => perSecond / results[peer][round]));
  return {
    tables: [
      {
        title:
          `${PROMPTS.length} texts of up to ${TOKENS} tokens by tiny-gpt2, one after the other, greedily, on one thread\n` +
          'A managed server and its client are in processes of their own; transformers.js is alone in one.',
        head: ['variant', 'tokens/s', ...PEERS.map((peer) => `× ${peer}`)],
        rows: Object.entries(results).map(([name, perSecond]) => [
          name,
          ...[median(perSecond), ...PEERS.map((peer) => ratio(name, peer))].map(short),
        ]),
      },
    ],
    targets: ['process', 'thread'].flatMap((isolation) =>
      PEERS.map((peer) => {
        const name = `generate, ${isolation}`;
        return atLeast(`tokens/s: ${name} / ${peer}`, 0.9, ratio(name, peer));
      }),
    ),
    figures: results,
  };
}
