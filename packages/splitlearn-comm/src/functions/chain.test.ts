import { describe, expect, it, vi } from 'vitest';
import { collect, rejection } from '../../test/support/deferred.js';
import { type ComputeFunction, type ComputeRequest, type ComputeResponse, callContext } from '../compute-function.js';
import { CommError } from '../errors.js';
import { type Tensor, tensor } from '../tensor.js';
import { AsyncChainComputeFunction } from './chain.js';

/** A stage that adds a number to x, and notes in `log` what it is asked for. */
function adding(amount: number, log: string[] = []): ComputeFunction {
  return {
    async setup() {
      log.push(`setup ${amount}`);
    },
    async compute({ inputs }) {
      return { outputs: { x: tensor([((inputs.x as Tensor<'float32'>).data[0] as number) + amount]) } };
    },
    async teardown() {
      log.push(`teardown ${amount}`);
    },
  };
}

const request = { inputs: { x: tensor([1]) } };

describe('AsyncChainComputeFunction', () => {
  it('gives the outputs of a stage to the next', async () => {
    const chain = new AsyncChainComputeFunction([adding(10), adding(100), adding(1000)]);
    expect(await chain.compute(request, callContext())).toMatchObject({ outputs: { x: tensor([1111]) } });
  });

  it('gives every stage the parameters and the context, and the last the wanted outputs', async () => {
    const compute = vi.fn<ComputeFunction['compute']>(async ({ inputs }) => ({ outputs: inputs }));
    const chain = new AsyncChainComputeFunction([{ compute }, { compute }]);
    const context = callContext();
    await chain.compute({ ...request, model: 'm', parameters: { a: 1 }, outputs: ['x'] }, context);
    expect(compute.mock.calls).toEqual([
      [{ ...request, model: 'm', parameters: { a: 1 }, outputs: [] }, context],
      [{ ...request, model: 'm', parameters: { a: 1 }, outputs: ['x'] }, context],
    ]);
  });

  it('adds up where the time went, measuring stages that do not say', async () => {
    const timing = { queueMs: 2, computeMs: 5 };
    const timed: ComputeFunction = { compute: async ({ inputs }) => ({ outputs: inputs, timing }) };
    const response = await new AsyncChainComputeFunction([timed, adding(1), timed]).compute(request, callContext());
    expect(response.timing?.queueMs).toBe(4);
    expect(response.timing?.computeMs).toBeGreaterThanOrEqual(10);
  });

  it('begins no stage once the call is aborted', async () => {
    const controller = new AbortController();
    const second = vi.fn<ComputeFunction['compute']>();
    const chain = new AsyncChainComputeFunction([
      {
        async compute({ inputs }) {
          controller.abort(new CommError('DEADLINE_EXCEEDED', 'late'));
          return { outputs: inputs };
        },
      },
      { compute: second },
    ]);
    const computed = chain.compute(request, callContext({ signal: controller.signal }));
    expect(await rejection(computed)).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(second).not.toHaveBeenCalled();
  });

  it('sets up first to last, and tears down last to first', async () => {
    const log: string[] = [];
    const chain = new AsyncChainComputeFunction([adding(1, log), { compute: adding(2).compute }, adding(3, log)]);
    await chain.setup();
    await chain.teardown();
    expect(log).toEqual(['setup 1', 'setup 3', 'teardown 3', 'teardown 1']);
  });

  it.each(['well', 'badly'])('takes down what was set up when a stage cannot be, even if that goes %s', async (how) => {
    const log: string[] = [];
    const failing: ComputeFunction = {
      ...adding(3, log),
      async setup() {
        throw new CommError('UNAVAILABLE', 'no server');
      },
    };
    const second = adding(2, log);
    if (how === 'badly') {
      second.teardown = async () => {
        throw new Error('cannot');
      };
    }
    const chain = new AsyncChainComputeFunction([adding(1, log), second, failing, adding(4, log)]);
    expect(await rejection(chain.setup())).toMatchObject({ code: 'UNAVAILABLE', message: 'no server' });
    const undone = how === 'well' ? ['teardown 2', 'teardown 1'] : ['teardown 1'];
    expect(log).toEqual(['setup 1', 'setup 2', ...undone]);
  });

  it('tears down all stages even when some cannot be, and then says so', async () => {
    const log: string[] = [];
    const broken = (name: string): ComputeFunction => ({
      ...adding(0),
      async teardown() {
        throw new Error(name);
      },
    });
    const chain = new AsyncChainComputeFunction([adding(1, log), broken('a'), adding(2, log), broken('b')]);
    const error = await rejection(chain.teardown());
    expect(error).toBeInstanceOf(AggregateError);
    expect((error as AggregateError).errors).toMatchObject([{ message: 'b' }, { message: 'a' }]);
    expect(log).toEqual(['teardown 2', 'teardown 1']);
  });

  describe('streaming', () => {
    /** A stage that repeats what it gets, as often as its state says, and grows. */
    const repeating: ComputeFunction = {
      compute: adding(0).compute,
      async *stream(requests) {
        let times = 0;
        for await (const { inputs } of requests) {
          times++;
          for (let index = 0; index < times; index++) yield { outputs: inputs };
        }
      },
    };

    async function* requests(...values: number[]): AsyncGenerator<ComputeRequest> {
      for (const value of values) yield { inputs: { x: tensor([value]) }, parameters: { value } };
    }

    function values(responses: readonly ComputeResponse[]) {
      return responses.map(({ outputs }) => (outputs.x as Tensor<'float32'>).data[0]);
    }

    it('goes through the streams of all stages, each with a state of its own', async () => {
      const chain = new AsyncChainComputeFunction([repeating, adding(10), repeating]);
      const responses = await collect(chain.stream(requests(1, 2), callContext()));
      expect(values(responses)).toEqual([11, 12, 12, 12, 12, 12]);
    });

    it('gives every stage the parameters of the request it comes from', async () => {
      const seen: unknown[] = [];
      const noting: ComputeFunction = {
        compute: async ({ inputs, parameters }) => {
          seen.push(parameters?.value);
          return { outputs: inputs };
        },
      };
      await collect(new AsyncChainComputeFunction([adding(1), noting, noting]).stream(requests(7, 8), callContext()));
      expect(seen).toEqual([7, 7, 8, 8]);
    });

    it('fails as the stage in the middle does, and ends those around it', async () => {
      let ended = false;
      const first: ComputeFunction = {
        compute: adding(0).compute,
        async *stream(all) {
          try {
            for await (const { inputs } of all) yield { outputs: inputs };
          } finally {
            ended = true;
          }
        },
      };
      const failing: ComputeFunction = {
        compute: async () => {
          throw new CommError('ABORTED', 'in the middle');
        },
      };
      const chain = new AsyncChainComputeFunction([first, failing, adding(1)]);
      expect(await rejection(collect(chain.stream(requests(1), callContext())))).toMatchObject({ code: 'ABORTED' });
      expect(ended).toBe(true);
    });

    it('ends all stages when its reader leaves', async () => {
      let ended = 0;
      const stage: ComputeFunction = {
        compute: adding(0).compute,
        async *stream(all) {
          try {
            for await (const { inputs } of all) yield { outputs: inputs };
          } finally {
            ended++;
          }
        },
      };
      const chain = new AsyncChainComputeFunction([stage, stage, stage]);
      for await (const _ of chain.stream(requests(1, 2, 3), callContext())) break;
      expect(ended).toBe(3);
    });
  });

  it('needs at least one stage', () => {
    expect(() => new AsyncChainComputeFunction([])).toThrow('a chain needs at least one compute function');
  });
});
