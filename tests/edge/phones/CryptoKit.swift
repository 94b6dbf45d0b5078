// Apple's module has its place on Linux taken by this one: the digest is that of `sha256sum`.
import Foundation

public enum SHA256 {
  public static func hash(data: Data) -> [UInt8] {
    let process = Process(), input = Pipe(), output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/sha256sum")
    (process.standardInput, process.standardOutput) = (input, output)
    try! process.run()
    input.fileHandleForWriting.write(data)
    input.fileHandleForWriting.closeFile()
    let digits = Array(output.fileHandleForReading.readDataToEndOfFile().prefix(64))
    return stride(from: 0, to: 64, by: 2).map {
      UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)!
    }
  }
}
