// Drives a peer: so many echoes in flight until the time is over and there were enough of them; checks each answer.

/** @returns the milliseconds it took in all, and each echo's latency in microseconds. */
export async function drive(echo, { bytes, inFlight, calls = 1, ms = 0 }) {
  const latencies = [];
  const beganMs = performance.now();
  let made = 0;
  async function lane() {
    const tensor = new Float32Array(bytes / 4);
    while (made < calls || performance.now() - beganMs < ms) {
      tensor[0] = ++made;
      tensor[tensor.length - 1] = -made;
      const sentMs = performance.now();
      const answer = await echo(tensor);
      latencies.push(Math.round((performance.now() - sentMs) * 1_000));
      check(answer, tensor);
    }
  }
  await Promise.all(Array.from({ length: inFlight }, lane));
  return { ms: performance.now() - beganMs, latencies };
}

function check(answer, tensor) {
  const right =
    answer instanceof Float32Array &&
    answer !== tensor &&
    answer.length === tensor.length &&
    answer[0] === tensor[0] &&
    answer.at(-1) === tensor.at(-1);
  if (!right) throw new Error('the tensor that came back is another one');
}
