// The tags of the fields in compute.proto that are read and written by hand: the field's number times 8, and its wire type.
// A field that comes with another type than the one it has here is as good as unknown, as protobuf wants it.

// ComputeRequest and ComputeResponse
export const REQUEST_ID_TAG = 0x0a;
export const MODEL_TAG = 0x12;
export const TENSOR_TAG = 0x1a;

// ComputeRequest
export const PARAMETERS_TAG = 0x22;
export const OUTPUT_TAG = 0x2a;
export const OUTPUT_ENCODING_TAG = 0x30;

// ComputeResponse
export const TIMING_TAG = 0x22;

// Timing
export const QUEUE_MS_TAG = 0x09;
export const COMPUTE_MS_TAG = 0x11;
export const SERVER_MS_TAG = 0x19;
export const BATCH_SIZE_TAG = 0x20;

// Tensor
export const NAME_TAG = 0x0a;
export const DTYPE_TAG = 0x10;
export const SHAPE_TAG = 0x18;
export const PACKED_SHAPE_TAG = 0x1a;
export const ENCODING_TAG = 0x20;
export const DATA_TAG = 0x2a;
export const PADDING_TAG = 0x32;
