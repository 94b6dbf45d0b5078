// A localizer of edge.export on MediaPipe Tasks; for files with maps "mean", "class:NAME" and "all".
// Podfile: pod 'MediaPipeTasksVision'
import MediaPipeTasksVision
import UIKit

final class MediaPipeLocalizer {
  private let metadata: Metadata
  private let segmenter: ImageSegmenter

  init(path: String) throws {
    metadata = try Metadata(path)
    let options = ImageSegmenterOptions()
    options.baseOptions.modelAssetPath = path
    options.runningMode = .image
    options.shouldOutputConfidenceMasks = true
    options.shouldOutputCategoryMask = false
    segmenter = try ImageSegmenter(options: options)
  }

  /// As Localizer.localize.
  func localize(
    _ picture: CGImage, className: String? = nil, minArea: Double = 0, minPictureArea: Double = 0,
    maxObjects: Int = 0
  ) throws -> Found {
    // Resized here, for MediaPipe's own resizing does not average over what it leaves out.
    let rgb = resizeImage(
      try rgbOf(picture), picture.width, picture.height, to: metadata.width, metadata.height)
    let result = try segmenter.segment(image: MPImage(uiImage: UIImage(cgImage: try image(of: rgb))))
    guard let mask = result.confidenceMasks?[try metadata.channel(of: className)] else {
      throw LocalizerError(message: "MediaPipe gave no confidence mask.")
    }
    let values = Array(UnsafeBufferPointer(start: mask.float32Data, count: mask.width * mask.height))
    return try metadata.refined(ScoreMap(values: values, width: mask.width, height: mask.height), by: rgb)
      .localize(
        picture.width, picture.height, threshold: metadata.threshold, minArea: minArea,
        minPictureArea: minPictureArea, maxObjects: maxObjects, isSeparated: metadata.isSeparated)
  }

  private func image(of rgb: [UInt8]) throws -> CGImage {
    var rgba = [UInt8](repeating: 255, count: rgb.count / 3 * 4)
    for (i, value) in rgb.enumerated() { rgba[i / 3 * 4 + i % 3] = value }
    guard let provider = CGDataProvider(data: Data(rgba) as CFData),
      let image = CGImage(
        width: metadata.width, height: metadata.height, bitsPerComponent: 8, bitsPerPixel: 32,
        bytesPerRow: metadata.width * 4, space: CGColorSpace(name: CGColorSpace.sRGB)!,
        bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue), provider: provider,
        decode: nil, shouldInterpolate: false, intent: .defaultIntent)
    else { throw LocalizerError(message: "The resized picture can't be made.") }
    return image
  }
}
