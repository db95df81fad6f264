"""Networks computed by ONNX Runtime instead of torch."""
