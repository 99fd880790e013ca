/** An embedded message that comes in any number of parts: together they are one, which has all that is in them. */
export class JoinedBytes {
  #bytes: Uint8Array = new Uint8Array();
  #length = 0;

  add(message: Uint8Array, start: number, end: number): void {
    // Nothing is made for an empty part, of which a message of megabytes may have millions.
    if (start === end) return;
    const part = message.subarray(start, end);
    const length = this.#length + part.byteLength;
    if (this.#length === 0) {
      this.#bytes = part;
    } else {
      if (this.#bytes.byteLength < length) {
        // Twice as much as is needed, so that what is there is not copied again for each part that comes.
        const larger = new Uint8Array(2 * length);
        larger.set(this.bytes);
        this.#bytes = larger;
      }
      this.#bytes.set(part, this.#length);
    }
    this.#length = length;
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}
