import { describe, expect, it } from 'vitest';
import { FaultRelay, type FaultRelayOptions } from './fault-relay.js';

const SERVER = '127.0.0.1:50051';
const invalid = (message: string | RegExp) => expect.objectContaining({ code: 'INVALID_ARGUMENT', message });

describe('FaultRelay', () => {
  it.each([SERVER, 'localhost:1', '[::1]:65535', 'unix:/tmp/a.sock', 'unix:a.sock'])(
    'takes the address %s',
    (address) => {
      expect(() => new FaultRelay(address, { listen: address })).not.toThrow();
    },
  );

  it.each(['', 'localhost', ':1', '::1:1', 'localhost:', 'localhost:65536', 'localhost:-1', 'unix:', 'http://a:1'])(
    'does not take the address %j',
    (address) => {
      const problem = `must be host:port or unix:/path; it is '${address}'`;
      expect(() => new FaultRelay(address)).toThrow(invalid(`server ${problem}`));
      expect(() => new FaultRelay(SERVER, { listen: address })).toThrow(invalid(`listen ${problem}`));
    },
  );

  it.each<[keyof FaultRelayOptions, unknown]>([
    ['delayMs', -1],
    ['delayMs', Number.NaN],
    ['bytesPerSecond', 0],
    ['bytesPerSecond', '1'],
    ['cutEveryBytes', 0.5],
    ['corruptEveryBytes', Number.NaN],
    ['bufferBytes', 0],
  ])('does not take %s: %j', (option, value) => {
    expect(() => new FaultRelay(SERVER, { [option]: value })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(`${option} must be`) }),
    );
  });

  it('checks what is changed later, and changes nothing then', () => {
    const relay = new FaultRelay(SERVER);
    expect(() => relay.set({ delayMs: -1 })).toThrow(invalid('delayMs must be 0 or more milliseconds; it is -1'));
    expect(() => relay.cutAfter(0, 'toServer')).toThrow(invalid('bytes must be an integer of 1 or more; it is 0'));
    expect(() => relay.corruptAfter(-1, 'toClient')).toThrow(
      invalid('bytes must be an integer of 0 or more; it is -1'),
    );
  });

  it('begins with nothing', () => {
    expect(new FaultRelay(SERVER).getStatistics()).toEqual({
      accepted: 0,
      refused: 0,
      open: 0,
      cut: 0,
      corrupted: 0,
      bytesToServer: 0,
      bytesToClient: 0,
    });
  });
});
