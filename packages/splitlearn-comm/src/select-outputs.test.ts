import { describe, expect, it } from 'vitest';
import { selectOutputs } from './select-outputs.js';
import { tensor } from './tensor.js';

const response = { model: 'm', outputs: { a: tensor(1), b: tensor(2), c: tensor(3) } };

describe('selectOutputs', () => {
  it.each([undefined, []])('keeps all where none are named (%o)', (outputs) => {
    expect(selectOutputs(response, { inputs: {}, ...(outputs && { outputs }) }, 'all')).toBe(response);
  });

  it('keeps those that are named, and what else the response says', () => {
    const selected = selectOutputs(response, { inputs: {}, outputs: ['c', 'a'] }, 'all');
    expect(selected).toEqual({ model: 'm', outputs: { a: tensor(1), c: tensor(3) } });
  });

  it('keeps one that is named twice once', () => {
    expect(Object.keys(selectOutputs(response, { inputs: {}, outputs: ['b', 'b'] }, 'all').outputs)).toEqual(['b']);
  });

  it('says which output there is not, and which there are', () => {
    expect(() => selectOutputs(response, { inputs: {}, outputs: ['a', 'z'] }, 'all')).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: "there is no output 'z'; there are 'a', 'b', 'c'",
      }),
    );
    expect(() => selectOutputs({ outputs: {} }, { inputs: {}, outputs: ['z'] }, 'all')).toThrow('there are none');
  });

  it('does not take what every object has for an output', () => {
    expect(() => selectOutputs(response, { inputs: {}, outputs: ['toString'] }, 'all')).toThrow("no output 'toString'");
  });

  it('lets a piece of a stream have only some of those that are named', () => {
    expect(selectOutputs(response, { inputs: {}, outputs: ['a', 'later'] }, 'present').outputs).toEqual({
      a: tensor(1),
    });
  });

  it('can name __proto__', () => {
    const outputs = Object.fromEntries([
      ['__proto__', tensor(1)],
      ['b', tensor(2)],
    ]);
    const selected = selectOutputs({ outputs }, { inputs: {}, outputs: ['__proto__'] }, 'all');
    expect(Object.getOwnPropertyNames(selected.outputs)).toEqual(['__proto__']);
  });
});
