// The model of custom-model.mjs. A WorkerExecutor loads it in each of its threads, and gives it the executor's `data`.
export default ({ factor }) => ({
  run({ input }) {
    return { output: { ...input, data: input.data.map((value) => value * factor) } };
  },
});
