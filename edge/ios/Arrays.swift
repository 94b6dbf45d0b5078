// What is done to arrays before and after the network; numbers as in edge/runtime.py.
import CryptoKit
import Foundation

struct LocalizerError: Error { let message: String }

/// Reads wsol_tf.json out of the zip behind a .tflite; its digest is that of the network, or the file is damaged.
func readMetadata(_ file: [UInt8]) throws -> [String: Any] {
  let damaged = LocalizerError(
    message: "The file is cut off or damaged, or edge.export did not write it: no metadata.")
  func bytes(_ at: Int, _ count: Int) throws -> ArraySlice<UInt8> {
    guard at >= 0, count >= 0, at + count <= file.count else { throw damaged }
    return file[at..<at + count]
  }
  func number(_ at: Int, _ count: Int) throws -> Int {
    try bytes(at, count).reversed().reduce(0) { $0 << 8 | Int($1) }
  }
  var end = file.count - 22
  while try number(end, 4) != 0x0605_4b50 { end -= 1 }
  var entry = try number(end + 16, 4)
  let modelEnd = try number(entry + 42, 4), entries = try number(end + 10, 2)
  for _ in 0..<entries {
    let name = try bytes(entry + 46, number(entry + 28, 2))
    if String(decoding: name, as: UTF8.self) == "wsol_tf.json" {
      let header = try number(entry + 42, 4)
      let start = try header + 30 + number(header + 26, 2) + number(header + 28, 2)
      let text = try bytes(start, number(entry + 24, 4)), crc = try number(entry + 16, 4)
      guard text.count < 1 << 22, Int(crc32(text)) == crc,
        let json = try JSONSerialization.jsonObject(with: Data(text)) as? [String: Any]
      else { throw damaged }
      // Files of version 0.1.0 have no digest.
      guard let digest = json["sha256"] else { return json }
      let network = try bytes(0, modelEnd)
      let found = SHA256.hash(data: Data(network)).map { String(format: "%02x", $0) }.joined()
      guard digest as? String == found else {
        throw LocalizerError(
          message: "The file is damaged: its network is not the one that was exported.")
      }
      return json
    }
    entry += try 46 + name.count + number(entry + 30, 2) + number(entry + 32, 2)
  }
  throw damaged
}

/// CRC-32 of bytes, as in zip files.
private func crc32(_ bytes: ArraySlice<UInt8>) -> UInt32 {
  ~bytes.reduce(~0) { crc, byte in
    (0..<8).reduce(crc ^ UInt32(byte)) { value, _ in value >> 1 ^ (value & 1 == 1 ? 0xedb8_8320 : 0) }
  }
}

/// Resizes RGB bytes: bilinear, antialiased, aspect ignored, by Pillow's arithmetic.
func resizeImage(_ rgb: [UInt8], _ width: Int, _ height: Int, to toWidth: Int, _ toHeight: Int) -> [UInt8] {
  let across = Triangles(width, toWidth), down = Triangles(height, toHeight)
  if height - toHeight > max(0, 2 * (width - toWidth)) {  // Pillow then takes the rows first
    let rows = down.resample(rgb, lines: width, 3, width * 3, size: width * toHeight * 3, 3, width * 3)
    return across.resample(
      rows, lines: toHeight, width * 3, 3, size: toWidth * toHeight * 3, toWidth * 3, 3)
  }
  let columns = across.resample(
    rgb, lines: height, width * 3, 3, size: toWidth * height * 3, toWidth * 3, 3)
  return down.resample(
    columns, lines: toWidth, 3, toWidth * 3, size: toWidth * toHeight * 3, 3, toWidth * 3)
}

/// First source position and weights, in 1 / 2^22, of each of `size` positions made of n.
private struct Triangles {
  var first: [Int] = []
  var weights: [[Int]] = []

  init(_ n: Int, _ size: Int) {
    let scale = Double(n) / Double(size), support = max(scale, 1)
    for i in 0..<size {
      let center = (Double(i) + 0.5) * scale
      let start = max(Int(center - support + 0.5), 0), end = min(Int(center + support + 0.5), n)
      let row = (start..<end).map { max(1 - abs((Double($0) - center + 0.5) / support), 0) }
      let sum = row.reduce(0, +)
      first.append(start)
      weights.append(row.map { Int(($0 / sum * 4_194_304 + 0.5).rounded(.down)) })
    }
  }

  /// Resizes each of `lines` lines; steps are distances in the arrays.
  func resample(
    _ source: [UInt8], lines: Int, _ lineStep: Int, _ step: Int, size: Int, _ toLineStep: Int,
    _ toStep: Int
  ) -> [UInt8] {
    var target = [UInt8](repeating: 0, count: size)
    for line in 0..<lines {
      for i in first.indices {
        for colour in 0..<3 {
          var sum = 1 << 21  // one half, for rounding
          var from = line * lineStep + first[i] * step + colour
          for weight in weights[i] {
            sum += Int(source[from]) * weight
            from += step
          }
          target[line * toLineStep + i * toStep + colour] = UInt8(min(sum >> 22, 255))
        }
      }
    }
    return target
  }
}

func softmax(_ logits: [Float]) -> [Double] {
  let exponents = logits.map { exp(Double($0 - logits.max()!)) }
  return exponents.map { $0 / exponents.reduce(0, +) }
}
