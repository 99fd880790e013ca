import { type ComputeResponse, type ModelInfo, tensor } from '@splitlearn/comm';
import { describe, expect, it } from 'vitest';
import { TestEnvironment } from '../../test/support/cli-environment.js';
import type { ModelSession } from './model-session.js';

const info: ModelInfo = { name: 'm', state: 'READY' };
const piece = (text: string, reason?: string): ComputeResponse => ({
  outputs: {
    ...{ text: tensor([text]), token_id: tensor(BigInt64Array.of(7n)) },
    ...(reason !== undefined && { finish_reason: tensor([reason]) }),
  },
});

type Stream = ModelSession['stream'];

/** A model that answers so; `closed` says how often it was given back. */
function setUp(stream: Stream, options: { readonly isTerminal?: boolean; readonly stdin?: string } = {}) {
  const state = { closed: 0, asked: [] as unknown[] };
  const session: ModelSession = {
    info,
    compute: async () => ({}),
    stream(request, signal) {
      state.asked.push(request);
      return stream(request, signal);
    },
    close: async () => void state.closed++,
  };
  const environment = new TestEnvironment({ ...options, parts: { openModel: async () => session } });
  return { environment, state };
}

describe('run', () => {
  const words = async function* () {
    yield piece('one');
    yield piece(' two', 'stop');
  };

  it('asks with the words of the command line and the parameters that were said, and with no others', async () => {
    const { environment, state } = setUp(words);
    const { code, out } = await environment.run(
      'run',
      'm',
      'a',
      'b',
      '--temperature',
      '0.5',
      '--stop',
      'x',
      '--stop',
      'y',
    );
    expect([code, out]).toEqual([0, 'one two\n']);
    expect(state.asked).toEqual([
      { inputs: { text: tensor(['a b']) }, parameters: { temperature: 0.5, stop: ['x', 'y'] } },
    ]);
    expect(state.closed).toBe(1);
  });

  it('takes the prompt from standard input, without the end of its last line', async () => {
    const { environment, state } = setUp(words, { stdin: 'one\ntwo\n' });
    await environment.run('run', 'm');
    expect(state.asked).toMatchObject([{ inputs: { text: tensor(['one\ntwo']) } }]);
  });

  it('with --json tells of each token and of the whole', async () => {
    const { environment } = setUp(words);
    const { out } = await environment.run('run', 'm', 'p', '--json');
    expect(
      out
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([
      { type: 'token', text: 'one', tokenId: 7 },
      { type: 'token', text: ' two', tokenId: 7 },
      { type: 'done', text: 'one two', tokens: 2, finishReason: 'stop', firstTokenMs: 0, totalMs: 0 },
    ]);
  });

  it('lets no model move the cursor of a terminal, and changes nothing for a file', async () => {
    const escapes = async function* () {
      yield piece('a\u001b[2J\rb\n\tc\u009b');
    };
    expect((await setUp(escapes, { isTerminal: true }).environment.run('run', 'm', 'p')).out).toBe('a[2Jb\n\tc\n');
    expect((await setUp(escapes).environment.run('run', 'm', 'p')).out).toBe('a\u001b[2J\rb\n\tc\u009b\n');
  });

  it('shows tensors with their types and shapes, the first values of long ones', async () => {
    const { environment } = setUp(async function* () {
      const long = tensor(new Float32Array(20).fill(0.123456), [20]);
      yield { outputs: { json: tensor(['{}']), label: tensor(['a']), id: tensor(BigInt64Array.of(5n)), long } };
    });
    const { out } = await environment.run('run', 'm', 'p');
    expect(out).toBe(
      `label string[1]  'a'\nid int64[1]  5\nlong float32[20]  ${Array(16).fill('0.1235').join(', ')} … 4 more\n`,
    );
  });

  it('with --json gives tensors with all their values, large integers as texts', async () => {
    const { environment } = setUp(async function* () {
      yield { outputs: { id: tensor(BigInt64Array.of(2n ** 60n)) } };
    });
    const { out } = await environment.run('run', 'm', 'p', '--json');
    const outputs = { id: { dtype: 'int64', shape: [1], data: [String(2n ** 60n)] } };
    expect(JSON.parse(out)).toEqual({ type: 'done', outputs, totalMs: 0 });
  });

  it('gives the model back when it fails, and shows what was there till then in a line of its own', async () => {
    const { environment, state } = setUp(async function* () {
      yield piece('half');
      throw new Error('crashed');
    });
    const { code, out, err } = await environment.run('run', 'm', 'p');
    expect([code, out, err, state.closed]).toEqual([1, 'half\n', 'error: crashed (FAILED)\n', 1]);
  });

  it('ends at Ctrl-C, and gives the model back', async () => {
    const { environment, state } = setUp(async function* (_, signal) {
      yield piece('half');
      environment.signal('SIGINT');
      signal.throwIfAborted();
    });
    expect((await environment.run('run', 'm', 'p')).code).toBe(130);
    expect(state.closed).toBe(1);
  });
});
