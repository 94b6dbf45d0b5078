// Objects that touch, cut apart: a component that comes apart into large parts at a higher threshold
// is as many objects. Numbers as in wsol_tf/model/separation.py.

private let grid = 56  // positions along each side at which a map is looked at, whatever its size
private let between = 0.03  // two thresholds
private let steps = 8
private let share = 0.25  // of the cells of an object that a part must have

/// Cuts the components of a mask into objects: the mask without the pixels on one side of each cut, so
/// that each object is a component of its own. mask: where the map, in 0..1, lies above the threshold,
/// which is not rounded to a Float.
func separate(_ mask: [Bool], _ map: [Float], _ width: Int, _ height: Int, threshold: Double) -> [Bool] {
  let labels = labelsOf(mask, width, height)
  func center(_ i: Int, _ side: Int) -> Int { Int((Double(i) + 0.5) * Double(side) / Double(grid)) }
  let seen = (0..<grid * grid).map { cell -> Int in
    center(cell / grid, height) * width + center(cell % grid, width)
  }
  let cells = seen.map { Int(labels[$0]) }, values = seen.map { map[$0] }
  var cutInto = [[Int]](repeating: [], count: Int(labels.max()!) + 1)  // of what is cut, the part of each cell
  for component in Set(cells) where component > 0 {
    let partOf = partsOf(values, inside: cells.map { $0 == component }, threshold: threshold)
    if partOf.contains(where: { $0 > 0 }) { cutInto[component] = partOf }
  }
  if cutInto.allSatisfy({ $0.isEmpty }) { return mask }
  let columns = (0..<width).map { $0 * grid / width }, rows = (0..<height).map { $0 * grid / height * grid }
  var kept = mask
  for i in mask.indices where mask[i] && !cutInto[Int(labels[i])].isEmpty {
    let x = i % width, y = i / width, component = Int(labels[i])
    let part = cutInto[component][rows[y] + columns[x]]
    for v in max(y - 1, 0)...min(y + 1, height - 1) {
      for u in max(x - 1, 0)...min(x + 1, width - 1) where mask[v * width + u] {
        if cutInto[component][rows[v] + columns[u]] > part { kept[i] = false }
      }
    }
  }
  return kept
}

/// The highest number among each cell and its eight neighbours.
private func highestAround(_ numbers: [Int], _ width: Int) -> [Int] {
  let rows = numbers.indices.map { i -> Int in
    let left = i % width > 0 ? numbers[i - 1] : 0
    let right = i % width < width - 1 ? numbers[i + 1] : 0
    return max(numbers[i], left, right)
  }
  return rows.indices.map { i -> Int in
    let above = i >= width ? rows[i - width] : 0
    let below = i < rows.count - width ? rows[i + width] : 0
    return max(rows[i], above, below)
  }
}

/// Which part of a component (the cells inside) each cell is nearest to, from 0 on.
private func partsOf(_ values: [Float], inside: [Bool], threshold: Double) -> [Int] {
  var partOf = [Int](repeating: 0, count: values.count), count = 0
  func cut(_ region: [Bool], from first: Int) {
    let own = region.indices.map { region[$0] && inside[$0] }
    let area = own.filter { $0 }.count
    var seeds = [[Int]](), step = first
    while step <= steps {
      let above = Float(threshold + Double(step) * between)
      seeds = seedsOf(own.indices.map { own[$0] && values[$0] > above }, area)
      if seeds.count != 1 { break }  // where there is none, there is none at a higher threshold
      step += 1
    }
    if seeds.count > 1 {
      let nearest = nearestOf(seeds)
      for part in seeds.indices {
        cut(region.indices.map { region[$0] && nearest[$0] == part }, from: step + 1)
      }
    } else {
      for cell in region.indices where region[cell] { partOf[cell] = count }
      count += 1
    }
  }
  cut([Bool](repeating: true, count: values.count), from: 1)
  return partOf
}

/// The parts of a grid that are thick and large enough: their cells, by the first of them.
private func seedsOf(_ cells: [Bool], _ area: Int) -> [[Int]] {
  // Opened by 3 x 3 cells. Beyond the edge of the picture an object may go on.
  let outside = highestAround(cells.map { $0 ? 0 : 1 }, grid)
  let opened = highestAround(outside.map { 1 - $0 }, grid)
  let labels = labelsOf(opened.map { $0 > 0 }, grid, grid)
  var parts = [[Int]](repeating: [], count: Int(labels.max()!))
  for (cell, label) in labels.enumerated() where label > 0 { parts[Int(label) - 1].append(cell) }
  return parts.filter { Double($0.count) >= share * Double(area) }
}

/// Which of the parts each cell is nearest to; of equally near ones the first.
private func nearestOf(_ seeds: [[Int]]) -> [Int] {
  let distances = seeds.map { squaredDistances($0) }
  return (0..<grid * grid).map { cell -> Int in
    var nearest = 0
    for part in seeds.indices where distances[part][cell] < distances[nearest][cell] { nearest = part }
    return nearest
  }
}

/// The square of the distance of each cell to the nearest one of a part: along rows, then columns.
private func squaredDistances(_ part: [Int]) -> [Int] {
  var along = [Int](repeating: 1 << 20, count: grid * grid)  // more than any
  for cell in part {
    let row = cell - cell % grid
    for x in 0..<grid { along[row + x] = min(along[row + x], (x - cell % grid) * (x - cell % grid)) }
  }
  return along.indices.map { cell -> Int in
    var least = Int.max
    for y in 0..<grid {
      let down = y - cell / grid
      least = min(least, along[y * grid + cell % grid] + down * down)
    }
    return least
  }
}
