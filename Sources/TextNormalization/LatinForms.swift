/// What letters, digits and signs are without their marks and their form: the part of Unicode's compatibility
/// decomposition (NFKD) that leaves ASCII letters, digits or punctuation, for the blocks that English text has.
enum LatinForms {
    /// The plain form; a blank stands for what no plain sign is left of.
    static func plain(_ scalar: Unicode.Scalar) -> String? {
        switch scalar.value {
        case 0xFF01...0xFF5E:
            // Full width; the signs that remain are none that are read.
            return String(Unicode.Scalar(UInt8(scalar.value - 0xFEE0)))
        case 0x1D400...0x1D6A3 where scalar.properties.generalCategory != .unassigned:
            // Mathematical letters: alphabets of capitals and small letters, with gaps.
            return letter(scalar.value - 0x1D400)
        case 0x1D7CE...0x1D7FF:
            return String(Unicode.Scalar(UInt8(48 + (scalar.value - 0x1D7CE) % 10)))
        // In circles.
        case 0x2460...0x2473:
            return String(scalar.value - 0x245F)
        case 0x24B6...0x24E9:
            return letter(scalar.value - 0x24B6)
        default:
            return forms[scalar]
        }
    }

    /// A letter by its place in an alphabet of capitals and small letters.
    private static func letter(_ index: UInt32) -> String {
        let letter = UInt8(index % 52)
        return String(Unicode.Scalar(letter < 26 ? 65 + letter : 71 + letter))
    }

    private static let forms: [Unicode.Scalar: String] = {
        var forms: [Unicode.Scalar: String] = [:]
        for (plain, variants) in table {
            for variant in variants.unicodeScalars { forms[variant] = plain }
        }
        return forms
    }()

    private static let table: [(plain: String, variants: String)] = [
        (".", "\u{2024}"),
        ("0", "⁰₀"),
        ("1", "¹₁"),
        ("2", "²₂"),
        ("3", "³₃"),
        ("4", "⁴₄"),
        ("5", "⁵₅"),
        ("6", "⁶₆"),
        ("7", "⁷₇"),
        ("8", "⁸₈"),
        ("9", "⁹₉"),
        (";", "\u{37E}"),
        ("A", "ÀÁÂÃÄÅĀĂĄǍǞǠǺȀȂȦᴬḀẠẢẤẦẨẪẬẮẰẲẴẶ\u{212B}"),
        ("B", "ᴮḂḄḆℬ"),
        ("C", "ÇĆĈĊČḈℂℭⅭ"),
        ("D", "ĎᴰḊḌḎḐḒⅅⅮ"),
        ("E", "ÈÉÊËĒĔĖĘĚȄȆȨᴱḔḖḘḚḜẸẺẼẾỀỂỄỆℰ"),
        ("F", "Ḟℱ"),
        ("G", "ĜĞĠĢǦǴᴳḠ"),
        ("H", "ĤȞᴴḢḤḦḨḪℋℌℍ"),
        ("I", "ÌÍÎÏĨĪĬĮİǏȈȊᴵḬḮỈỊℐℑⅠ"),
        ("J", "Ĵᴶ"),
        ("K", "ĶǨᴷḰḲḴ\u{212A}"),
        ("L", "ĹĻĽᴸḶḸḺḼℒⅬ"),
        ("M", "ᴹḾṀṂℳⅯ"),
        ("N", "ÑŃŅŇǸᴺṄṆṈṊℕ"),
        ("O", "ÒÓÔÕÖŌŎŐƠǑǪǬȌȎȪȬȮȰᴼṌṎṐṒỌỎỐỒỔỖỘỚỜỞỠỢ"),
        ("P", "ᴾṔṖℙ"),
        ("Q", "ℚ"),
        ("R", "ŔŖŘȐȒᴿṘṚṜṞℛℜℝ"),
        ("S", "ŚŜŞŠȘṠṢṤṦṨ"),
        ("T", "ŢŤȚᵀṪṬṮṰ"),
        ("U", "ÙÚÛÜŨŪŬŮŰŲƯǓǕǗǙǛȔȖᵁṲṴṶṸṺỤỦỨỪỬỮỰ"),
        ("V", "ṼṾⅤ"),
        ("W", "ŴᵂẀẂẄẆẈ"),
        ("X", "ẊẌⅩ"),
        ("Y", "ÝŶŸȲẎỲỴỶỸ"),
        ("Z", "ŹŻŽẐẒẔℤℨ"),
        ("a", "ªàáâãäåāăąǎǟǡǻȁȃȧᵃḁạảấầẩẫậắằẳẵặₐ"),
        ("b", "ᵇḃḅḇ"),
        ("c", "çćĉċčᶜḉⅽ"),
        ("d", "ďᵈḋḍḏḑḓⅆⅾ"),
        ("e", "èéêëēĕėęěȅȇȩᵉḕḗḙḛḝẹẻẽếềểễệₑℯⅇ"),
        ("f", "ᶠḟ"),
        ("g", "ĝğġģǧǵᵍḡℊ"),
        ("h", "ĥȟʰḣḥḧḩḫẖₕℎ"),
        ("i", "ìíîïĩīĭįǐȉȋᵢḭḯỉịⁱℹⅈⅰ"),
        ("j", "ĵǰʲⅉ"),
        ("k", "ķǩᵏḱḳḵₖ"),
        ("l", "ĺļľˡḷḹḻḽₗℓⅼ"),
        ("m", "ᵐḿṁṃₘⅿ"),
        ("n", "ñńņňǹṅṇṉṋⁿₙ"),
        ("o", "ºòóôõöōŏőơǒǫǭȍȏȫȭȯȱᵒṍṏṑṓọỏốồổỗộớờởỡợₒℴ"),
        ("p", "ᵖṕṗₚ"),
        ("r", "ŕŗřȑȓʳᵣṙṛṝṟ"),
        ("s", "śŝşšſșˢṡṣṥṧṩẛₛ"),
        ("t", "ţťțᵗṫṭṯṱẗₜ"),
        ("u", "ùúûüũūŭůűųưǔǖǘǚǜȕȗᵘᵤṳṵṷṹṻụủứừửữự"),
        ("v", "ᵛᵥṽṿⅴ"),
        ("w", "ŵʷẁẃẅẇẉẘ"),
        ("x", "ˣẋẍₓⅹ"),
        ("y", "ýÿŷȳʸẏẙỳỵỷỹ"),
        ("z", "źżžᶻẑẓẕ"),
        (" C", "℃"), (" F", "℉"), (" n", "ŉ"), ("!!", "\u{203C}"), ("!?", "\u{2049}"), ("..", "\u{2025}"),
        ("0 3", "↉"), ("1 ", "⅟"), ("1 10", "⅒"), ("1 3", "⅓"), ("1 5", "⅕"), ("1 6", "⅙"), ("1 7", "⅐"), ("1 8", "⅛"),
        ("1 9", "⅑"), ("2 3", "⅔"), ("2 5", "⅖"), ("3 5", "⅗"), ("3 8", "⅜"), ("4 5", "⅘"), ("5 6", "⅚"), ("5 8", "⅝"),
        ("7 8", "⅞"), ("?!", "\u{2048}"), ("??", "\u{2047}"), ("DZ", "Ǆ"), ("DZ", "Ǳ"), ("Dz", "ǅ"), ("Dz", "ǲ"),
        ("FAX", "℻"), ("II", "Ⅱ"), ("III", "Ⅲ"), ("IJ", "Ĳ"), ("IV", "Ⅳ"), ("IX", "Ⅸ"), ("L ", "Ŀ"), ("LJ", "Ǉ"),
        ("Lj", "ǈ"), ("NJ", "Ǌ"), ("Nj", "ǋ"), ("No", "№"), ("Rs", "₨"), ("SM", "℠"), ("TEL", "℡"), ("TM", "™"),
        ("VI", "Ⅵ"), ("VII", "Ⅶ"), ("VIII", "Ⅷ"), ("XI", "Ⅺ"), ("XII", "Ⅻ"), ("a ", "ẚ"), ("a c", "℀"), ("a s", "℁"),
        ("c o", "℅"), ("c u", "℆"), ("dz", "ǆ"), ("dz", "ǳ"), ("ff", "ﬀ"), ("ffi", "ﬃ"), ("ffl", "ﬄ"), ("fi", "ﬁ"),
        ("fl", "ﬂ"), ("ii", "ⅱ"), ("iii", "ⅲ"), ("ij", "ĳ"), ("iv", "ⅳ"), ("ix", "ⅸ"), ("l ", "ŀ"), ("lj", "ǉ"),
        ("nj", "ǌ"), ("st", "ﬅ"), ("st", "ﬆ"), ("vi", "ⅵ"), ("vii", "ⅶ"), ("viii", "ⅷ"), ("xi", "ⅺ"), ("xii", "ⅻ"),
    ]
}
