// Reads cases from a file, and prints what edge/android makes of them: see test_phones.py.
package localizer

import java.io.File
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.double
import kotlinx.serialization.json.doubleOrNull
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

private fun JsonObject.number(name: String) = get(name)?.jsonPrimitive?.doubleOrNull
private fun JsonObject.count(name: String) = number(name)?.toInt() ?: 0
private fun JsonObject.numbers(name: String) = getValue(name).jsonArray.map { it.jsonPrimitive.double }
private fun JsonObject.floats(name: String) = numbers(name).let { all -> FloatArray(all.size) { all[it].toFloat() } }
private fun JsonObject.bytes(name: String) = numbers(name).let { all -> ByteArray(all.size) { all[it].toInt().toByte() } }
private fun JsonObject.scoreMap() = ScoreMap(floats("values"), count("width"), count("height"))
private fun list(numbers: Iterable<Number>) = JsonArray(numbers.map { JsonPrimitive(it) })

private fun resized(case: JsonObject) = list(
    resizeImage(case.bytes("rgb"), case.count("width"), case.count("height"), case.count("toWidth"), case.count("toHeight"))
        .map { it.toInt() and 255 })

private fun localized(case: JsonObject): JsonElement {
    val found = case.scoreMap().localize(
        case.count("toWidth"), case.count("toHeight"), case.number("threshold"), case.number("minArea") ?: 0.0,
        case.number("minPictureArea") ?: 0.0, case.count("maxObjects"),
        case.getValue("isSeparated").jsonPrimitive.boolean)
    return JsonObject(mapOf(
        "mask" to list(found.mask.indices.filter { found.mask[it] }),
        "box" to (found.box?.let { list(it.toList()) } ?: JsonNull),
        "boxes" to JsonArray(found.boxes.map { list(it.toList()) }),
        "scores" to list(found.objects.map { it.score }),
        "areas" to list(found.objects.map { it.area })))
}

private fun refined(case: JsonObject): JsonElement {
    val map = case.scoreMap().refined(case.bytes("rgb"), case.count("toWidth"), case.count("toHeight"))
    val sides = mapOf("width" to JsonPrimitive(map.width), "height" to JsonPrimitive(map.height))
    return JsonObject(sides + ("values" to list(map.values.toList())))
}

private fun present(case: JsonObject): JsonElement {
    val probabilities = softmax(case.floats("logits"))
    val found = presentClasses(probabilities, case.number("presence")!!, case.number("background")?.toInt())
    return JsonObject(mapOf("present" to list(found), "probabilities" to list(found.map { probabilities[it] })))
}

private fun answer(what: String, case: JsonElement): JsonElement = try {
    when (what) {
        "resized" -> resized(case.jsonObject)
        "localized" -> localized(case.jsonObject)
        "refined" -> refined(case.jsonObject)
        "present" -> present(case.jsonObject)
        else -> Json.parseToJsonElement(readMetadata(File(case.jsonPrimitive.content).readBytes()))
    }
} catch (error: IllegalArgumentException) {
    JsonPrimitive(error.message)
}

fun main(arguments: Array<String>) {
    val cases = Json.parseToJsonElement(File(arguments[0]).readText()).jsonObject
    println(JsonObject(cases.mapValues { (what, all) -> JsonArray(all.jsonArray.map { answer(what, it) }) }))
}
