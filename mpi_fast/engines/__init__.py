"""Engines: what runs exported graphs, ONNX Runtime and TensorRT, on buffers of fixed addresses."""
