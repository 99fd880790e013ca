/** Is there in Node 20, but not in the type library of ES2023. */
interface AtomicsWithWaitAsync {
  waitAsync(memory: Int32Array, index: number, value: number): { readonly value: string | Promise<string> };
}

/** Memory that a test shares with the threads of its models, and ways to wait for what they count there. */
export class Counters {
  readonly memory = new Int32Array(new SharedArrayBuffer(32));

  get(counter: number): number {
    return Atomics.load(this.memory, counter);
  }

  /** Waits, without a timer, until a counter has reached a value. */
  async reaches(counter: number, value: number): Promise<void> {
    for (let now = this.get(counter); now < value; now = this.get(counter)) {
      await (Atomics as unknown as AtomicsWithWaitAsync).waitAsync(this.memory, counter, now).value;
    }
  }
}
