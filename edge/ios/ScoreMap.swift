// From a score map to a mask and boxes; numbers as in edge/arrays.py.

/// A component of a mask: box x0, y0, x1, y1 edges in pixels, half-open; score: the mean of the map
/// inside, 0..1; area: pixels.
struct FoundObject { let box: [Int], score: Float, area: Int }

/// Mask of a picture, and its components that count as objects, the largest first.
struct Found {
  let width: Int, height: Int, mask: [Bool], objects: [FoundObject]
  var hasObject = true

  var boxes: [[Int]] { objects.map { $0.box } }

  /// The first of the boxes; the whole picture where there is none, nil where there is no object.
  var box: [Int]? { boxes.first ?? (hasObject ? [0, 0, width, height] : nil) }

  /// What is found where the predicted class is that of pictures without any object.
  func withoutObject() -> Found {
    Found(
      width: width, height: height, mask: mask.map { _ in false }, objects: [], hasObject: false)
  }
}

struct ScoreMap {
  let values: [Float], width: Int, height: Int

  /// threshold: 0..1 after the stretch, or nil for the map's own (Otsu); isSeparated: whether objects
  /// that touch are cut apart; the others: see components. With a minPictureArea that leaves no object,
  /// there is no box.
  func localize(
    _ toWidth: Int, _ toHeight: Int, threshold: Double?, minArea: Double = 0, minPictureArea: Double = 0,
    maxObjects: Int = 0, isSeparated: Bool = false
  ) throws -> Found {
    let map = try stretched().resized(toWidth, toHeight)
    let exact = threshold ?? Double(map.otsu()), cut = Float(exact)
    var mask = map.values.map { $0 > cut }
    if isSeparated { mask = separate(mask, map.values, toWidth, toHeight, threshold: exact) }
    let objects = components(
      mask, map.values, toWidth, toHeight, minArea: minArea, minPictureArea: minPictureArea,
      maxObjects: maxObjects)
    return Found(
      width: toWidth, height: toHeight, mask: mask, objects: objects, hasObject: minPictureArea == 0)
  }

  /// By the map's own minimum and maximum to 0..1; a constant map becomes zeros.
  func stretched() throws -> ScoreMap {
    guard values.allSatisfy({ $0.isFinite }) else {
      throw LocalizerError(message: "The output of the model is not finite.")
    }
    let low = values.min()!, span = values.max()! - low
    return ScoreMap(values: values.map { span > 0 ? ($0 - low) / span : 0 }, width: width, height: height)
  }

  /// With its edges moved to those of the picture, a quarter of that wide and high, in 0..1; as it is
  /// where it is constant. rgb: the bytes that the network saw.
  func refined(_ rgb: [UInt8], _ inputWidth: Int, _ inputHeight: Int) throws -> ScoreMap {
    let whole = try stretched()
    if !whole.values.contains(where: { $0 > 0 }) { return self }
    let toWidth = inputWidth / 4, toHeight = inputHeight / 4
    let coarse = whole.resized(toWidth, toHeight).values.map { Double($0) }
    var guide = [[Double]](repeating: [Double](repeating: 0, count: coarse.count), count: 3)
    for y in 0..<4 * toHeight {
      for x in 0..<4 * toWidth {
        for colour in 0..<3 {
          let byte = rgb[(y * inputWidth + x) * 3 + colour]
          guide[colour][y / 4 * toWidth + x / 4] += Double(byte) / (16 * 255)
        }
      }
    }
    let filtered = guidedFilter(coarse, guide: guide, toWidth, toHeight)
    return ScoreMap(values: filtered.map { Float(min(max($0, 0), 1)) }, width: toWidth, height: toHeight)
  }

  /// As OpenCV's INTER_LINEAR.
  func resized(_ toWidth: Int, _ toHeight: Int) -> ScoreMap {
    let across = linear(width, toWidth), down = linear(height, toHeight)
    func mix(_ a: Float, _ b: Float, _ share: Float) -> Float { Float(Double(a) + Double(b - a) * Double(share)) }
    var rows = [Float](), all = [Float]()
    rows.reserveCapacity(height * toWidth)
    all.reserveCapacity(toHeight * toWidth)
    for y in 0..<height {
      for (left, right, share) in across {
        rows.append(mix(values[y * width + left], values[y * width + right], share))
      }
    }
    for (above, below, share) in down {
      for x in 0..<toWidth { all.append(mix(rows[above * toWidth + x], rows[below * toWidth + x], share)) }
    }
    return ScoreMap(values: all, width: toWidth, height: toHeight)
  }

  private func linear(_ n: Int, _ size: Int) -> [(Int, Int, Float)] {
    (0..<size).map { i in
      let position = (Double(i) + 0.5) * (Double(n) / Double(size)) - 0.5
      let before = min(max(Int(position.rounded(.down)), 0), n - 1)
      let outside = position < 0 || position >= Double(n - 1)
      return (before, min(before + 1, n - 1), outside ? 0 : Float(position - Double(before)))
    }
  }

  func otsu() -> Float {
    var counts = [Double](repeating: 0, count: 256)
    for value in values { counts[min(max(Int(value * 256), 0), 255)] += 1 }
    let total = counts.enumerated().reduce(0) { $0 + Double($1.offset) * $1.element }
    var below = 0.0, moment = 0.0, between = [Double]()
    for bin in 0..<255 {
      below += counts[bin]
      moment += counts[bin] * Double(bin)
      let above = Double(values.count) - below, difference = moment * above - (total - moment) * below
      between.append(difference * difference / max(below * above, 1))
    }
    let best = between.max()! * (1 - 1e-9)
    return Float(between.firstIndex { $0 >= best }! + between.lastIndex { $0 >= best }! + 2) / 512
  }
}

/// The 8-connected components of a mask: most pixels first, equal ones by their first pixel, row by
/// row. Those with fewer pixels than the share minArea of the largest one's, or minPictureArea of the
/// picture's, are left out, and at most maxObjects are kept (0: all).
func components(
  _ mask: [Bool], _ map: [Float], _ width: Int, _ height: Int, minArea: Double = 0,
  minPictureArea: Double = 0, maxObjects: Int = 0
) -> [FoundObject] {
  // Swift does not promise a stable sort.
  let found = objectsOf(labelsOf(mask, width, height), map, width).enumerated()
  let sorted = found.sorted { ($1.element.area, $0.offset) < ($0.element.area, $1.offset) }.map { $0.element }
  let least = max(minArea * Double(sorted.first?.area ?? 0), minPictureArea * Double(mask.count))
  let objects = sorted.filter { Double($0.area) >= least }
  return maxObjects == 0 ? objects : Array(objects.prefix(maxObjects))
}

/// The 8-connected component of each pixel of a mask, from 1 on by their first pixels; 0: none.
func labelsOf(_ mask: [Bool], _ width: Int, _ height: Int) -> [Int32] {
  var labels = [Int32](repeating: 0, count: mask.count)
  var parents: [Int32] = [0]  // of each label given so far: a lower one of the same component, or itself
  func root(_ label: Int32) -> Int32 {
    var at = label
    while parents[Int(at)] != at { at = parents[Int(at)] }
    return at
  }
  for i in mask.indices where mask[i] {
    let x = i % width, above = i - width
    let left = x > 0 ? labels[i - 1] : 0, upLeft = x > 0 && above >= 0 ? labels[above - 1] : 0
    let up = above >= 0 ? labels[above] : 0, upRight = x < width - 1 && above >= 0 ? labels[above + 1] : 0
    let before = up > 0 ? up : max(left, upLeft)  // these touch each other
    labels[i] = before > 0 ? before : upRight
    if labels[i] == 0 {
      labels[i] = Int32(parents.count)
      parents.append(labels[i])
    } else if up == 0 && before > 0 && upRight > 0 {
      let a = root(before), b = root(upRight)
      parents[Int(max(a, b))] = min(a, b)
    }
  }
  var count: Int32 = 0
  for label in parents.indices.dropFirst() {  // parents become numbers, the lower ones first
    let parent = Int(parents[label])
    count += parent == label ? 1 : 0
    parents[label] = parent == label ? count : parents[parent]
  }
  return labels.map { parents[Int($0)] }
}

/// What has each label, from 1 on.
private func objectsOf(_ labels: [Int32], _ map: [Float], _ width: Int) -> [FoundObject] {
  let count = Int(labels.max()!)
  var boxes = [[Int]](repeating: [Int.max, Int.max, 0, 0], count: count)
  var sums = [Double](repeating: 0, count: count), areas = [Int](repeating: 0, count: count)
  var start = 0
  while start < labels.count {  // run by run: pixels of a row with the same label
    let label = labels[start], x = start % width, y = start / width, rowEnd = start - x + width
    var end = start, sum = 0.0
    while end < rowEnd && labels[end] == label {
      sum += Double(map[end])
      end += 1
    }
    if label > 0 {
      let own = Int(label) - 1, box = boxes[own]
      boxes[own] = [min(box[0], x), min(box[1], y), max(box[2], x + end - start), y + 1]
      sums[own] += sum
      areas[own] += end - start
    }
    start = end
  }
  return (0..<count).map {
    FoundObject(box: boxes[$0], score: Float(sums[$0] / Double(areas[$0])), area: areas[$0])
  }
}
