"""Foreign model files become ONNX: bounded parsers, never TensorFlow, torch or a pickle."""
