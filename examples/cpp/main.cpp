// Translate images by an exported generator, without Python: translate MODEL.onnx OUT.ppm IN.ppm [OUT.ppm IN.ppm ...]
//
// MODEL.onnx is generator.onnx of `p2p export backend=onnx frames=true`. It takes and gives 8-bit pixels, so nothing
// is scaled here. Images are binary PPM (P6) of the model's size, as `convert a.jpg -resize '256x256!' a.ppm` of
// ImageMagick makes them.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> pixels;  // rows of RGB
};

Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be opened");
  std::string magic;
  int64_t most = 0;
  Image image;
  if (!(file >> magic >> image.width >> image.height >> most) || magic != "P6" || most != 255 || image.width < 1 ||
      image.height < 1 || image.width > 65536 || image.height > 65536)
    throw std::runtime_error(path + " is not a binary PPM (P6) of 8 bits without comments");
  file.get();  // the one blank before the pixels
  image.pixels.resize(image.height * image.width * 3);
  if (!file.read(reinterpret_cast<char*>(image.pixels.data()), image.pixels.size()))
    throw std::runtime_error(path + " ends before its last pixel");
  return image;
}

void write_ppm(const std::string& path, int64_t height, int64_t width, const uint8_t* pixels) {
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << width << " " << height << "\n255\n";
  file.write(reinterpret_cast<const char*>(pixels), height * width * 3);
  if (!file.flush()) throw std::runtime_error(path + " cannot be written");
}

int main(int argc, char** argv) try {
  if (argc < 4 || argc % 2) {
    std::cerr << "usage: translate MODEL.onnx OUT.ppm IN.ppm [OUT.ppm IN.ppm ...]\n";
    return 2;
  }
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::SessionOptions options;
  // With the release of ONNX Runtime for GPUs: options.AppendExecutionProvider_CUDA(OrtCUDAProviderOptions{});
  Ort::Session session(env, argv[1], options);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  // All images are one batch, (N, H, W, C).
  std::array<int64_t, 4> shape{0, 0, 0, 3};
  std::vector<uint8_t> batch;
  for (int at = 3; at < argc; at += 2) {
    const Image image = read_ppm(argv[at]);
    if (at > 3 && (image.height != shape[1] || image.width != shape[2]))
      throw std::runtime_error(std::string(argv[at]) + " has another size than " + argv[3]);
    shape = {shape[0] + 1, image.height, image.width, 3};
    batch.insert(batch.end(), image.pixels.begin(), image.pixels.end());
  }

  const char* taken[] = {"input_NHWC"};
  const char* given[] = {"output_NHWC"};
  const Ort::Value input =
      Ort::Value::CreateTensor<uint8_t>(memory, batch.data(), batch.size(), shape.data(), shape.size());
  std::vector<Ort::Value> outputs = session.Run(Ort::RunOptions{nullptr}, taken, &input, 1, given, 1);

  const std::vector<int64_t> size = outputs[0].GetTensorTypeAndShapeInfo().GetShape();
  if (size[3] != 3) throw std::runtime_error("the model gives images that are not RGB, which PPM cannot hold");
  const uint8_t* pixels = outputs[0].GetTensorData<uint8_t>();
  for (int64_t each = 0; each < size[0]; ++each)
    write_ppm(argv[2 + 2 * each], size[1], size[2], pixels + each * size[1] * size[2] * 3);
  return 0;
} catch (const std::exception& error) {  // also ONNX Runtime's, such as for an image of another size
  std::cerr << "error: " << error.what() << "\n";
  return 1;
}
