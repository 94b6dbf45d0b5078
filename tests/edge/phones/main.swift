// Reads cases from a file, and prints what edge/ios makes of them: see test_phones.py.
import Foundation

typealias Case = [String: Any]

func number(_ value: Any?) -> Double? { (value as? NSNumber)?.doubleValue }
func count(_ value: Any?) -> Int { Int(number(value) ?? 0) }
func floats(_ value: Any?) -> [Float] { (value as! [NSNumber]).map { $0.floatValue } }
func bytes(_ value: Any?) -> [UInt8] { (value as! [NSNumber]).map { $0.uint8Value } }

func scoreMap(_ given: Case) -> ScoreMap {
  ScoreMap(values: floats(given["values"]), width: count(given["width"]), height: count(given["height"]))
}

func resized(_ given: Case) -> [Int] {
  resizeImage(
    bytes(given["rgb"]), count(given["width"]), count(given["height"]), to: count(given["toWidth"]),
    count(given["toHeight"])
  ).map { Int($0) }
}

func localized(_ given: Case) throws -> Any {
  let found = try scoreMap(given).localize(
    count(given["toWidth"]), count(given["toHeight"]), threshold: number(given["threshold"]),
    minArea: number(given["minArea"]) ?? 0, minPictureArea: number(given["minPictureArea"]) ?? 0,
    maxObjects: count(given["maxObjects"]), isSeparated: given["isSeparated"] as! Bool)
  let box: Any = found.box ?? NSNull() as Any
  return [
    "mask": found.mask.indices.filter { found.mask[$0] }, "box": box, "boxes": found.boxes,
    "scores": found.objects.map { Double($0.score) }, "areas": found.objects.map { $0.area },
  ] as Case
}

func refined(_ given: Case) throws -> Any {
  let map = try scoreMap(given).refined(bytes(given["rgb"]), count(given["toWidth"]), count(given["toHeight"]))
  return ["values": map.values.map { Double($0) }, "width": map.width, "height": map.height] as Case
}

func present(_ given: Case) throws -> Any {
  let probabilities = try softmax(floats(given["logits"]))
  let background = number(given["background"]).map { Int($0) }
  let found = presentClasses(probabilities, number(given["presence"])!, background: background)
  return ["present": found, "probabilities": found.map { probabilities[$0] }] as Case
}

func metadata(_ path: Any) throws -> Any {
  try readMetadata([UInt8](Data(contentsOf: URL(fileURLWithPath: path as! String))))
}

func answer(_ what: String, _ given: Any) -> Any {
  do {
    switch what {
    case "resized": return resized(given as! Case)
    case "localized": return try localized(given as! Case)
    case "refined": return try refined(given as! Case)
    case "present": return try present(given as! Case)
    default: return try metadata(given)
    }
  } catch {
    return (error as? LocalizerError)?.message ?? "\(error)"
  }
}

let file = try! Data(contentsOf: URL(fileURLWithPath: CommandLine.arguments[1]))
let cases = try! JSONSerialization.jsonObject(with: file) as! [String: [Any]]
let answers = Dictionary(
  uniqueKeysWithValues: cases.map { what, each in (what, each.map { answer(what, $0) }) })
print(String(decoding: try! JSONSerialization.data(withJSONObject: answers), as: UTF8.self))
