// Images of a frozen network in C++: no Python and no mpi-fast. OpenVINO reads the ONNX file, and compiles it for the
// processor at hand; ONNX Runtime's C++ interface would do as well.
//
//     frozen frozen.onnx rows.bin images.bin [bf16]
//
// rows.bin: complex64 (frames, rows), of each frame the rows that the file's metadata list, see docs/consoles.md.
// images.bin: float32 (frames, 2, *grid), of each frame the image and the half widths of its 95 % intervals.
// With bf16, processors that can compute with bfloat16 do: faster, and off by about a hundredth of the largest voxel.
#include <cstddef>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <vector>

static std::vector<float> read_floats(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::vector<float> values(file ? static_cast<std::size_t>(file.tellg()) / sizeof(float) : 0);
    file.seekg(0).read(reinterpret_cast<char*>(values.data()), values.size() * sizeof(float));
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return values;
}

static void reconstruct(const std::string& network, const std::string& input, const std::string& output, bool half) {
    ov::Core core;
    const auto model = core.read_model(network);
    const std::size_t rows = model->input("real").get_partial_shape()[1].get_length();
    const std::vector<float> values = read_floats(input);
    const std::size_t frames = values.size() / 2 / rows;
    if (frames == 0 || values.size() != 2 * frames * rows)
        throw std::runtime_error(input + ": expected frames of " + std::to_string(rows) + " complex64 rows");

    // One frame at a time: of a fixed shape, the network is compiled once, and runs faster.
    model->reshape({{"real", ov::Shape{1, rows}}, {"imag", ov::Shape{1, rows}}});
    ov::AnyMap options{ov::inference_num_threads(1)};
    options.emplace(ov::hint::inference_precision(half ? ov::element::bf16 : ov::element::f32));
    ov::InferRequest request = core.compile_model(model, "CPU", options).create_infer_request();
    float* const real = request.get_tensor("real").data<float>();
    float* const imag = request.get_tensor("imag").data<float>();

    std::ofstream file(output, std::ios::binary);
    for (std::size_t frame = 0; frame < frames; ++frame) {
        for (std::size_t row = 0; row < rows; ++row) {
            real[row] = values[2 * (frame * rows + row)];
            imag[row] = values[2 * (frame * rows + row) + 1];
        }
        request.infer();
        const ov::Tensor image = request.get_tensor("image"), std = request.get_tensor("std");
        const float widening = request.get_tensor("quantiles").data<float>()[1];  // 95 % of the errors, next to std
        std::vector<float> width(std.data<float>(), std.data<float>() + std.get_size());
        for (float& value : width) value *= widening;
        file.write(reinterpret_cast<const char*>(image.data<float>()), image.get_byte_size());
        file.write(reinterpret_cast<const char*>(width.data()), image.get_byte_size());
    }
    if (!file.flush()) throw std::runtime_error(output + ": cannot be written");
    std::cout << "wrote " << output << ": " << frames << " frames\n";
}

int main(int count, char** given) {
    if (count < 4 || count > 5 || (count == 5 && std::string(given[4]) != "bf16")) {
        std::cerr << "usage: frozen frozen.onnx rows.bin images.bin [bf16]\n";
        return 2;
    }
    try {
        reconstruct(given[1], given[2], given[3], count == 5);
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
