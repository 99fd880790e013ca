// A client of a text model, in a process of its own. Its argument: the server's address.
import { ManagedClient } from '@splitlearn/manager';
import { answer, givenArguments } from './processes.mjs';
import { PROMPTS, TOKENS } from './text-works.mjs';

const [address] = givenArguments();
const client = new ManagedClient(address);

answer({
  /** Each token as it comes. */
  async generate() {
    const texts = [];
    const beganMs = performance.now();
    for (const prompt of PROMPTS) {
      const tokens = [];
      for await (const { tokenId } of client.generate(prompt, { maxNewTokens: TOKENS })) tokens.push(tokenId);
      texts.push(tokens);
    }
    return { ms: performance.now() - beganMs, texts };
  },
  /** The whole text at once. */
  async infer() {
    const texts = [];
    const beganMs = performance.now();
    for (const prompt of PROMPTS) texts.push((await client.infer(prompt, { maxNewTokens: TOKENS })).tokenIds);
    return { ms: performance.now() - beganMs, texts };
  },
  close: () => client.close(),
});
