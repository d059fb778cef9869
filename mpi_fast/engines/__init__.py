"""Engines that run exported graphs, ONNX Runtime and TensorRT, on buffers of fixed addresses."""
