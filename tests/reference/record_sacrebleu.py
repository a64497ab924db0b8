"""Records sacrebleu's scores, for crates/weft-metrics/tests/sacrebleu.rs.

    pip install sacrebleu==2.6.0
    python tests/reference/record_sacrebleu.py

All sentences were invented for this file.
"""

import json
import pathlib

import sacrebleu
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.bleu import _get_tokenizer

OUT = pathlib.Path(__file__).parents[2] / "crates/weft-metrics/tests/data/sacrebleu.json"
TOKENIZERS = ["13a", "intl", "char", "zh", "none"]

# name: (hypotheses, one list of references per reference stream)
CORPORA = {
    "english": (
        [
            "The ferry leaves at 7.45 from the old pier, doesn't it?",
            "She paid $1,299.99 for a well-made violin (and a bow).",
            "Nobody expected the lighthouse keeper's daughter to win again.",
            "It rained; we stayed in & played cards until 2-3 a.m.",
        ],
        [[
            "The ferry leaves at 7:45 from the old pier, does it not?",
            "She paid $1,299.99 for a well made violin and a bow.",
            "No one expected the daughter of the lighthouse keeper to win again.",
            "It was raining, so we stayed in & played cards until 2-3 a.m.",
        ]],
    ),
    "german": (
        [
            "„Wir müssen los“, rief Jörg, »sonst verpassen wir den Zug!«",
            "Die Straße ist 3,5 km lang – so steht’s jedenfalls im Führer.",
            "Ärgerlich: Der Kaffee kostete 4,20 €, früher waren es 3,80 €.",
            "Übermorgen öffnet das Café in der Goethestr. 12-14.",
        ],
        [[
            "„Wir müssen gehen“, rief Jörg, „sonst verpassen wir den Zug!“",
            "Die Straße ist 3,5 km lang - so steht es jedenfalls im Führer.",
            "Ärgerlich: Der Kaffee hat 4,20 € gekostet, früher 3,80 €.",
            "Übermorgen eröffnet das Café in der Goethestraße 12–14.",
        ]],
    ),
    "french": (
        [
            "« Où est passé l’élève ? » demanda-t-elle à voix basse.",
            "Le maïs a poussé de 12 cm ; c'est inouï, n'est-ce pas ?",
            "Cet été-là, Zoë vendit 1 500 crêpes en 3 jours !",
        ],
        [[
            "« Où est passée l’élève ? », demanda-t-elle à voix basse.",
            "Le maïs a grandi de 12 cm : c'est inouï, n'est-ce pas ?",
            "Cet été-là, Zoë a vendu 1 500 crêpes en trois jours !",
        ]],
    ),
    "vietnamese and turkish": (
        ["Con mèo trắng nằm ngủ trên mái nhà cả buổi chiều.", "İstanbul'da IŞIK çok güzel, değil mi?", "Kız kardeşim 3.000 ışık yılı uzakta."],
        [["Con mèo trắng ngủ trên mái nhà suốt buổi chiều.", "İstanbul'da ışık çok güzel, değil mi?", "Kız kardeşim 3.000 ışık yılı uzaktaydı."]],
    ),
    "russian": (
        [
            "Старик сидел у реки и чинил сеть — медленно, не торопясь.",
            "В 2019 году урожай вырос на 4,7 %, а цены упали.",
            "«Ёжик» ушёл в лес; ЁЛКА осталась.",
        ],
        [[
            "Старик сидел у реки и медленно чинил свою сеть, не торопясь.",
            "В 2019 г. урожай вырос на 4,7 %, но цены упали.",
            "«Ёжик» ушёл в лес, а ёлка осталась.",
        ]],
    ),
    "greek": (
        ["Ο ΨΑΡΑΣ ΓΥΡΙΣΕ ΑΡΓΑ ΣΤΟ ΣΠΙΤΙ ΤΟΥ.", "Πού είναι το κλειδί; Το έχασα χθες· μάλλον.", "Το νησί έχει 1.250 κατοίκους."],
        [["Ο ψαράς γύρισε αργά στο σπίτι του.", "Πού είναι το κλειδί; Το έχασα μάλλον χθες.", "Το νησί έχει περίπου 1.250 κατοίκους."]],
    ),
    "arabic": (
        ["وصلت السفينة إلى الميناء بعد ثلاثة أيام، أليس كذلك؟", "بلغ السعر ١٬٢٥٠٫٥٠ دينارًا في عام ٢٠٢٣.", "كَتَبَ الوَلَدُ الدَّرسَ."],
        [["وصلت السفينة إلى المرفأ بعد ثلاثة أيام، أليس كذلك؟", "بلغ السعر ١٬٢٥٠٫٥٠ دينار عام ٢٠٢٣.", "كتب الولد الدرس."]],
    ),
    "hebrew": (
        ["הילדה קנתה תפוח אדום בשוק, ואז הלכה הביתה.", "ד״ר לוי אמר: „לא!” – ונעלם.", "המחיר עלה ב-3.5% השנה."],
        [["הילדה קנתה תפוח ירוק בשוק ואז הלכה הביתה.", "ד״ר לוי אמר: „לא!” ונעלם.", "המחיר עלה השנה ב-3.5%."]],
    ),
    "hindi": (
        ["किसान ने सुबह खेत में पानी दिया और फिर सो गया।", "कीमत १,२५० रुपये है; क्या यह ठीक है?", "वह २०२१ में दिल्ली आया था।"],
        [["किसान ने सुबह खेत में पानी दिया, फिर वह सो गया।", "क़ीमत १,२५० रुपये है — क्या यह ठीक है?", "वह २०२१ में दिल्ली आई थी।"]],
    ),
    "chinese": (
        ["渔夫昨天在河边钓到了三条大鱼。", "他问:“你去过上海吗?”——我说没有。", "价格是3,500元(约合500美元),比去年涨了4.5%。", "我在Weft公司工作了10年。"],
        [["昨天渔夫在河边钓了三条大鱼。", "他问:“你到过上海吗?”我说没去过。", "价格为3,500元(约500美元),比去年上涨4.5%。", "我在 Weft 公司工作了十年。"]],
    ),
    "japanese": (
        ["猫は屋根の上で一日中眠っていた。", "「駅はどこですか?」と彼女が聞いた。", "カフェで3.5ドルのコーヒーを2杯飲んだ。", "ハンカク カタカナ も〜あり…"],
        [["猫は一日中屋根の上で寝ていた。", "「駅はどこですか」と彼女は尋ねた。", "カフェでコーヒーを2杯、3.5ドルで飲んだ。", "半角カタカナもあり…"]],
    ),
    "korean": (
        ["어부는 어제 강가에서 큰 물고기를 세 마리 잡았다.", "그는 “서울에 가 봤어요?”라고 물었다.", "가격은 3,500원(약 2.7달러)이다."],
        [["어부는 어제 강가에서 커다란 물고기 세 마리를 잡았다.", "그가 “서울에 가 봤어요?” 하고 물었다.", "가격은 3,500원(약 2.7달러)입니다."]],
    ),
    "thai": (
        ["แมวสีขาวนอนหลับอยู่บนหลังคาทั้งวัน", "ราคา ๑,๒๕๐ บาท แพงไปไหม?", "เขามาถึงปี ๒๕๖๕"],
        [["แมวสีขาวนอนบนหลังคาทั้งวัน", "ราคา ๑,๒๕๐ บาท แพงเกินไปไหม?", "เขามาถึงในปี ๒๕๖๕"]],
    ),
    "emoji and symbols": (
        ["Great job 👍🏽!!! See you at 5pm 🎉🎉", "I ❤️ maths: 2×3≤7, √16=4 and π≈3.14…", "👨‍👩‍👧‍👦 went home → tired 😴", "a+b=c @home #1 ~50% ^_^ \\o/ [x] {y} | `z`"],
        [["Good job 👍!!! See you at 5 pm 🎉", "I ❤ maths: 2×3≤7, √16 = 4, π≈3.14…", "👨‍👩‍👧‍👦 went home ➡ tired 😴", "a+b = c @ home #1 ~ 50% ^_^ \\o/ [x] {y} | `z`"]],
    ),
    "numbers and punctuation": (
        ["1,000.50 2.5.7 .5 5. ,5 5, 1-2 -1 a-1 1-a", "...,,,--- 3...4 3,,4 3--4 A.B.C. U.S.A", "10:30 3/4 50% 1_000 1e-5 0x1F 'tis rock'n'roll ''quoted''", "x.y,z;q:r!s?t(u)v[w]{k}"],
        [["1,000.5 2.5.8 .5 5. ,5 5 1-2 - 1 a-1 1 - a", "... ,,, --- 3...4 3,4 3-4 A.B.C U.S.A.", "10.30 3/4 50 % 1_000 1e-5 0x1f 'tis rock 'n' roll \"quoted\"", "x. y, z; q: r! s? t (u) v [w] {k}"]],
    ),
    "entities and odd spaces": (
        [
            "He said &quot;go&quot; &amp; left &lt;fast&gt; &amp;lt; &apos;now&apos;",
            "tab\tand\u00a0no-break\u3000ideographic\u2009thin space",
            "<skipped> words stay, a hy-\nphen and a line\nbreak do not",
            "  leading and trailing spaces   ",
            "file\x1cseparator\x1fand\x85next line\u200bzero\u2028width ",
        ],
        [[
            "He said \"go\" & left <fast> &lt; 'now'",
            "tab and no-break ideographic thin space",
            "words stay, a hyphen and a line break do not",
            "leading and trailing spaces",
            "file separator and next line zero width",
        ]],
    ),
    "combining and rare": (
        ["Cafe\u0301 nai\u0308ve co\u0308o\u0308perate", "ǅungla ﬁne ﬂow ẞ ŉ ǰ Ⅷ ① ²", "ΌΣΟΣ. ΣΑΣ ΑΣ1 Σ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚 𐍈 𠀀𠀁"],
        [["Café naïve coöperate", "ǆungla fine flow ß ʼn ǰ VIII 1 2", "όσος. σας ας1 σ", "Unicode 12 𐍈 𠀀𠀂"]],
    ),
    "identical": (
        ["The same words in the same order.", "And once more, with feeling!"],
        [["The same words in the same order.", "And once more, with feeling!"]],
    ),
    "disjoint": (["alpha beta gamma delta epsilon"], [["one two three four five"]]),
    "one word": (["yes", "no", "Perhaps."], [["yes", "never", "perhaps"]]),
    "short": (["two words", "a b c"], [["two words", "a b d"]]),
    "empty hypotheses": (["", "   ", "something here stays the same"], [["not empty", "neither is this", "something here stays the same"]]),
    "all empty": (["", ""], [["a b", "c d e"]]),
    "empty references": (["a b c", "d e f g"], [["", "d e f g"]]),
    "long hypothesis": (
        ["the the the the the the cat sat on the mat and and then it slept and slept and slept some more"],
        [["the cat sat on the mat and then it slept"]],
    ),
    "short hypothesis": (["the cat sat"], [["the cat sat on the mat and then it slept for a very long time indeed"]]),
    "no four-gram matches": (["a b c x d e f y g h i"], [["a b c z d e f w g h i"]]),
    "three references": (
        ["The bridge was closed because of strong winds.", "Twelve swans crossed the frozen lake at dawn.", "Prices rose 2.5% in May."],
        [
            ["The bridge has been closed due to strong winds.", "Twelve swans walked over the frozen lake at dawn.", "In May prices rose by 2.5%."],
            ["Because of high winds the bridge was closed.", "At dawn, twelve swans crossed the icy lake.", "Prices rose 2.5 percent in May."],
            ["They closed the bridge because of strong winds.", "A dozen swans crossed the lake, which was frozen.", "May saw prices rise 2.5%!"],
        ],
    ),
    "two references, equally far in length": (
        ["one two three four five", "six seven eight"],
        [["one two three four five six", "six seven eight nine"], ["one two three four", "six seven"]],
    ),
    "two references, chinese": (
        ["他昨天买了一本新书。", "天气很好,我们去公园吧!"],
        [["昨天他买了一本新书。", "天气真好,咱们去公园吧!"], ["他昨天买了本新书", "今天天气很好,我们去公园。"]],
    ),
}


def settings():
    for tokenizer in TOKENIZERS:
        yield BLEU, dict(tokenize=tokenizer)
    for tokenizer in ["13a", "intl"]:
        yield BLEU, dict(tokenize=tokenizer, lowercase=True)
    yield BLEU, dict(tokenize="13a", smooth_method="floor")
    yield BLEU, dict(tokenize="13a", smooth_method="floor", smooth_value=0.01)
    yield BLEU, dict(tokenize="13a", smooth_method="add-k")
    yield BLEU, dict(tokenize="13a", smooth_method="add-k", smooth_value=0.5)
    yield BLEU, dict(tokenize="13a", smooth_method="none")
    yield BLEU, dict(tokenize="13a", effective_order=True)
    yield BLEU, dict(tokenize="intl", effective_order=True, smooth_method="floor")
    yield CHRF, dict()
    yield CHRF, dict(word_order=2)
    yield CHRF, dict(lowercase=True)
    yield CHRF, dict(word_order=2, whitespace=True)
    yield CHRF, dict(word_order=2, eps_smoothing=True)
    yield CHRF, dict(char_order=4, word_order=1, beta=3)


def record(metric, hypotheses, references):
    """[score, the printed line, the score of each sentence alone if the metric is made for that]"""
    score = metric.corpus_score(hypotheses, references)
    sentences = []
    if isinstance(metric, CHRF) or metric.effective_order:
        for index, hypothesis in enumerate(hypotheses):
            sentence = metric.sentence_score(hypothesis, [stream[index] for stream in references])
            sentences.append(round(sentence.score, 10))
    return [round(score.score, 12), score.format(), sentences]


def tokenize(tokenizer, lines):
    return [_get_tokenizer(tokenizer)()(line.rstrip()) for line in lines]


def main():
    metrics = [(metric, setting, metric(**setting)) for metric, setting in settings()]
    corpora, signatures = [], {}
    for name, (hypotheses, references) in CORPORA.items():
        results = [record(metric, hypotheses, references) for _, _, metric in metrics]
        signatures[len(references)] = [str(metric.get_signature()) for _, _, metric in metrics]
        tokenized = {name: tokenize(name, hypotheses) for name in ["13a", "intl", "zh"]}
        corpora.append(
            {"name": name, "hypotheses": hypotheses, "references": references, "tokenized": tokenized, "results": results}
        )
    listed = [
        {"metric": metric.__name__, **setting, "signatures": {count: signatures[count][index] for count in (1, 3)}}
        for index, (metric, setting, _) in enumerate(metrics)
    ]
    dumps = lambda value: json.dumps(value, ensure_ascii=False)
    lines = []
    for corpus in corpora:
        results = ",\n  ".join(map(dumps, corpus.pop("results")))
        lines.append(dumps(corpus)[:-1] + ', "results": [\n  ' + results + "]}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        f'{{"sacrebleu": "{sacrebleu.__version__}",\n"settings": [\n  '
        + ",\n  ".join(map(dumps, listed)) + '],\n"corpora": [\n' + ",\n".join(lines) + "\n]}\n",
        encoding="utf-8",
    )
    print(len(corpora), "corpora,", len(corpora) * len(listed), "scores,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
