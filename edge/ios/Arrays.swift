// What is done to arrays before and after the network; numbers as in edge/arrays.py.
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

/// Filters a plane by a guide of three planes in 0..1: He et al., ECCV 2010, equations 19 to 21.
func guidedFilter(_ values: [Double], guide: [[Double]], _ width: Int, _ height: Int) -> [Double] {
  let epsilon = 3e-4  // variance of colours below which a window counts as flat
  func mean(_ plane: [Double]) -> [Double] { windowMeans(plane, width, height) }
  func product(_ a: [Double], _ b: [Double]) -> [Double] { mean(zip(a, b).map { $0 * $1 }) }
  let red = guide[0], green = guide[1], blue = guide[2]
  let r = mean(red), g = mean(green), b = mean(blue), v = mean(values)
  let rv = product(red, values), gv = product(green, values), bv = product(blue, values)
  let rr = product(red, red), rg = product(red, green), rb = product(red, blue)
  let gg = product(green, green), gb = product(green, blue), bb = product(blue, blue)
  var slopeR = v, slopeG = v, slopeB = v, offset = v
  for i in values.indices {
    let covR = rv[i] - r[i] * v[i], covG = gv[i] - g[i] * v[i], covB = bv[i] - b[i] * v[i]
    let vRR = rr[i] - r[i] * r[i] + epsilon, vRG = rg[i] - r[i] * g[i], vRB = rb[i] - r[i] * b[i]
    let vGG = gg[i] - g[i] * g[i] + epsilon, vGB = gb[i] - g[i] * b[i]
    let vBB = bb[i] - b[i] * b[i] + epsilon
    // The inverse of the symmetric 3 x 3 matrix of covariances, by its cofactors.
    let iRR = vGG * vBB - vGB * vGB, iRG = vGB * vRB - vRG * vBB, iRB = vRG * vGB - vGG * vRB
    let iGG = vRR * vBB - vRB * vRB, iGB = vRB * vRG - vRR * vGB, iBB = vRR * vGG - vRG * vRG
    let determinant = vRR * iRR + vRG * iRG + vRB * iRB
    let ofRed: Double = (iRR * covR + iRG * covG + iRB * covB) / determinant
    let ofGreen: Double = (iRG * covR + iGG * covG + iGB * covB) / determinant
    let ofBlue: Double = (iRB * covR + iGB * covG + iBB * covB) / determinant
    (slopeR[i], slopeG[i], slopeB[i]) = (ofRed, ofGreen, ofBlue)
    offset[i] = v[i] - ofRed * r[i] - ofGreen * g[i] - ofBlue * b[i]
  }
  let ofRed = mean(slopeR), ofGreen = mean(slopeG), ofBlue = mean(slopeB), rest = mean(offset)
  return values.indices.map { i -> Double in
    let colours: Double = ofRed[i] * red[i] + ofGreen[i] * green[i] + ofBlue[i] * blue[i]
    return colours + rest[i]
  }
}

/// Averages over windows that reach 1/7 of each side in either direction; borders are mirrored.
private func windowMeans(_ plane: [Double], _ width: Int, _ height: Int) -> [Double] {
  let rows = slide(plane, lines: height, width, n: width, 1)
  return slide(rows, lines: width, 1, n: height, width)
}

/// Slides a window along each of `lines` lines of n positions; steps are distances in the array.
private func slide(_ source: [Double], lines: Int, _ lineStep: Int, n: Int, _ step: Int) -> [Double] {
  let radius = max(1, Int((Double(n) / 7).rounded())), size = 2 * radius + 1
  let at = (0..<n + size).map { i -> Int in  // of what the windows hold, position by position
    let around = (i - radius + 2 * n * size) % (2 * n)  // ... 1 0 | 0 1 2 ... | 2 1 ...
    return min(around, 2 * n - 1 - around) * step
  }
  var means = [Double](repeating: 0, count: source.count)
  for line in 0..<lines {
    let start = line * lineStep
    var sum = 0.0
    for i in 0..<size { sum += source[start + at[i]] }
    for i in 0..<n {
      means[start + i * step] = sum / Double(size)
      sum += source[start + at[i + size]] - source[start + at[i]]
    }
  }
  return means
}

func softmax(_ logits: [Float]) throws -> [Double] {
  guard logits.allSatisfy({ $0.isFinite }) else {
    throw LocalizerError(message: "The output of the model is not finite.")
  }
  let exponents = logits.map { exp(Double($0 - logits.max()!)) }
  return exponents.map { $0 / exponents.reduce(0, +) }
}

/// The ids of the classes in a picture, the most probable first: that one, and all of at least
/// presence, without the background (an id or nil); none where that is the most probable.
func presentClasses(_ probabilities: [Double], _ presence: Double, background: Int? = nil) -> [Int] {
  // Swift does not promise a stable sort.
  let ranked = probabilities.indices.sorted { (-probabilities[$0], $0) < (-probabilities[$1], $1) }
  if ranked[0] == background { return [] }
  return ranked.filter { $0 != background && ($0 == ranked[0] || probabilities[$0] >= presence) }
}
