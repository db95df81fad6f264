"""Networks computed by ONNX Runtime, in the places where torch's stand."""
