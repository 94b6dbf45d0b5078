// The mask and the boxes on this device equal those of edge/runtime.py. Add localizer.tflite and what edge.golden wrote
// (golden.png, golden_mask.png, golden.json) to the test target's resources.
import UIKit
import XCTest

final class GoldenTests: XCTestCase {
  func testMaskAndBoxesEqualTheGoldenOnes() throws {
    let golden = try XCTUnwrap(JSONSerialization.jsonObject(
      with: Data(contentsOf: URL(fileURLWithPath: path("golden.json")))) as? [String: Any])
    let localizer = try Localizer(path: path("localizer.tflite"))
    let result = try localizer.localize(picture("golden.png"), className: golden["asked_class"] as? String)
    let mask = try rgbOf(picture("golden_mask.png"))
    let truth = stride(from: 0, to: mask.count, by: 3).map { mask[$0] != 0 }
    let both = zip(truth, result.found.mask).filter { $0 && $1 }.count
    let either = zip(truth, result.found.mask).filter { $0 || $1 }.count
    let iou = either == 0 ? 1 : Double(both) / Double(either)
    XCTAssertGreaterThanOrEqual(iou, try XCTUnwrap(golden["least_mask_iou"] as? Double))
    let box = golden["box"] as? [Double]  // none where there is no object
    XCTAssertEqual(result.found.box == nil, box == nil)
    for (edge, expected) in zip(result.found.box ?? [], box ?? []) {
      XCTAssertEqual(Double(edge), expected, accuracy: 4)
    }
    try checkObjects(golden, result)
    let others = try XCTUnwrap(golden["others"] as? [[String: Any]])
    XCTAssertEqual(others.count, result.others.count, "other classes")
    for (expected, part) in zip(others, result.others) { try checkObjects(expected, part) }
  }

  private func checkObjects(_ golden: [String: Any], _ result: Localization) throws {
    // A few pixels may differ between runtimes, and smaller components come and go with them.
    let boxes = try XCTUnwrap(golden["boxes"] as? [[Double]])
    let scores = try XCTUnwrap(golden["scores"] as? [Double])
    for (box, score) in zip(boxes, scores) where min(box[2] - box[0], box[3] - box[1]) > 8 {
      let same = result.found.objects.filter { found in
        zip(found.box, box).allSatisfy { abs(Double($0) - $1) <= 4 }
      }
      XCTAssertFalse(same.isEmpty, "\(box) of the boxes")
      XCTAssertTrue(same.contains { abs(Double($0.score) - score) <= 0.05 }, "score of \(box)")
    }
    if let name = golden["class"] as? String { XCTAssertEqual(result.className, name) }
  }

  private func path(_ name: String) throws -> String {
    try XCTUnwrap(Bundle(for: Self.self).path(forResource: name, ofType: nil))
  }

  private func picture(_ name: String) throws -> CGImage {
    try XCTUnwrap(UIImage(contentsOfFile: path(name))?.cgImage)
  }
}
