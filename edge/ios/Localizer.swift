// A localizer of edge.export on LiteRT. Podfile: pod 'TensorFlowLiteSwift'
import CoreGraphics
import Foundation
import TensorFlowLite

/// What stands in the file behind the network; threshold: 0..1, or nil for each map's own (Otsu).
struct Metadata {
  let map: String, labels: [String], width: Int, height: Int, threshold: Double?
  let isSeparated: Bool  // whether objects that touch are cut apart
  private let background: Int?, presence: Double?, refine: String

  init(_ path: String) throws {
    let json = try readMetadata([UInt8](Data(contentsOf: URL(fileURLWithPath: path))))
    guard let map = json["map"] as? String, let labels = json["labels"] as? [String],
      let size = json["input_size"] as? [Int]
    else { throw LocalizerError(message: "The metadata is of another version: export again.") }
    (self.map, self.labels, height, width) = (map, labels, size[0], size[1])
    threshold = (json["threshold"] as? NSNumber)?.doubleValue
    background = (json["background_class"] as? String).flatMap { labels.firstIndex(of: $0) }
    presence = (json["presence_threshold"] as? NSNumber)?.doubleValue
    let given: Any = json["refine"] ?? "none"  // files of version 0.1.0 don't say it
    guard let refine = given as? String, ["none", "guided"].contains(refine) else {
      throw LocalizerError(message: "The file is of another version: its refine is \(given).")
    }
    self.refine = refine
    let separate: Any = json["separate"] ?? false  // older files don't say it
    guard let isSeparated = separate as? Bool else {
      throw LocalizerError(message: "The file is of another version: its separate is \(separate).")
    }
    self.isSeparated = isSeparated
  }

  /// The map as it is cut: refined by the bytes that the network saw, where the file says so.
  func refined(_ map: ScoreMap, by rgb: [UInt8]) throws -> ScoreMap {
    try refine == "guided" ? map.refined(rgb, width, height) : map
  }

  /// Whether class scores stand beside the map.
  var hasScores: Bool { ["predicted", "topk", "present"].contains(map) || background != nil }

  /// The classes whose objects are shown, the first one first; none where that is the background.
  func present(_ probabilities: [Double]) throws -> [Int] {
    if map != "present" { return presentClasses(probabilities, 2, background: background) }
    guard let presence else {
      throw LocalizerError(message: "The metadata is of another version: export again.")
    }
    return presentClasses(probabilities, presence, background: background)
  }

  /// Channel of the map; className is for files with maps "all" and "present" alone.
  func channel(of className: String?) throws -> Int {
    if map != "all" && map != "present" {
      guard className == nil else {
        throw LocalizerError(message: "The file holds map \(map): no class can be chosen.")
      }
      return 0
    }
    guard let className, let channel = labels.firstIndex(of: className) else {
      throw LocalizerError(message: "The file holds a map for each class: name one of \(labels).")
    }
    return channel
  }
}

/// className and probability: nil where the file does not say them; others: with map "present", the
/// same of each of the other classes in the picture, the most probable first.
struct Localization {
  let found: Found, className: String?, probability: Double?
  var others: [Localization] = []
}

/// One object per thread.
final class Localizer {
  let metadata: Metadata
  private let runner: SignatureRunner

  init(path: String, threads: Int = 2) throws {
    metadata = try Metadata(path)
    var options = Interpreter.Options()
    options.threadCount = threads
    options.isXNNPackEnabled = true  // other kernels give other masks to int8 files
    runner = try Interpreter(modelPath: path, options: options).signatureRunner(with: "localize")
  }

  /// picture: upright, any size; className: with map "all", or with "present" in place of all classes
  /// that are, whose map is taken; the others: see components.
  func localize(
    _ picture: CGImage, className: String? = nil, minArea: Double = 0, minPictureArea: Double = 0,
    maxObjects: Int = 0
  ) throws -> Localization {
    let rgb = try rgbOf(picture)
    let small = resizeImage(rgb, picture.width, picture.height, to: metadata.width, metadata.height)
    try runner.invoke(with: ["image": Data(small)])
    let output = try runner.output(named: "foreground_mask")
    let size = output.shape.dimensions, values = real(output)
    func found(_ channel: Int) throws -> Found {
      let map = stride(from: channel, to: values.count, by: size[3]).map { values[$0] }
      return try metadata.refined(ScoreMap(values: map, width: size[2], height: size[1]), by: small)
        .localize(
          picture.width, picture.height, threshold: metadata.threshold, minArea: minArea,
          minPictureArea: minPictureArea, maxObjects: maxObjects, isSeparated: metadata.isSeparated)
    }
    let asked = className ?? (metadata.map.hasPrefix("class:") ? String(metadata.map.dropFirst(6)) : nil)
    let several = metadata.map == "present" && className == nil
    let channel = several ? 0 : try metadata.channel(of: className)
    guard metadata.hasScores else {
      return Localization(found: try found(channel), className: asked, probability: nil)
    }
    let probabilities = try softmax(real(runner.output(named: "class_scores")))
    let present = try metadata.present(probabilities)
    if present.isEmpty {
      let best = probabilities.indices.max { probabilities[$0] < probabilities[$1] }!
      return Localization(
        found: try found(channel).withoutObject(), className: metadata.labels[best],
        probability: probabilities[best])
    }
    if let asked { return Localization(found: try found(channel), className: asked, probability: nil) }
    let parts = try present.map { label in
      Localization(
        found: try found(several ? label : channel), className: metadata.labels[label],
        probability: probabilities[label])
    }
    return Localization(
      found: parts[0].found, className: parts[0].className, probability: parts[0].probability,
      others: Array(parts.dropFirst()))
  }

  private func real(_ tensor: Tensor) -> [Float] {
    if let quantization = tensor.quantizationParameters {
      return tensor.data.map { Float(Int($0) - quantization.zeroPoint) * quantization.scale }
    }
    return tensor.data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }
}

/// RGB bytes of a picture in sRGB, transparency on white.
func rgbOf(_ picture: CGImage) throws -> [UInt8] {
  let width = picture.width, height = picture.height
  var pixels = [UInt8](repeating: 255, count: width * height * 4)
  let drawn = pixels.withUnsafeMutableBytes { bytes -> Bool in
    guard let context = CGContext(
      data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4,
      space: CGColorSpace(name: CGColorSpace.sRGB)!, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
    else { return false }
    context.draw(picture, in: CGRect(x: 0, y: 0, width: width, height: height))
    return true
  }
  guard drawn else { throw LocalizerError(message: "The picture can't be drawn.") }
  var rgb = [UInt8](repeating: 0, count: width * height * 3)
  for i in 0..<width * height {
    for colour in 0..<3 { rgb[3 * i + colour] = pixels[4 * i + colour] }
  }
  return rgb
}
