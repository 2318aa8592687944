"""The shapes of programs: what the LM answers in turn, what it was asked, and what comes out.

Each is a deployment beside this file, of what is in `desk`, `schemas` and `states`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.lm_server import Answer, Request, Script, answers_by, fields, rate_limited, text
from tests.on_an_lm import ON_AN_LM

SMALL, LARGE, REASONS = "gpt-4o-mini", "gpt-4.1", "o3"
"""The models of the aliases `house`, `judge` and `thinker`."""


class Asked:
    """A request: texts and attachments that its messages have, and members of its body."""

    def __init__(self, *texts: str | Mapping[str, Any], **members: Any) -> None:
        self.texts = [text for text in texts if isinstance(text, str)]
        self.blocks = [block for block in texts if not isinstance(block, str)]
        self.members = {"model": SMALL} | members

    def missing(self, request: Request) -> list[object]:
        """What a request does not have."""
        contents = [message["content"] for message in request.body["messages"]]
        blocks = [block for content in contents if not isinstance(content, str) for block in content]
        said = [content for content in contents if isinstance(content, str)]
        said += [block["text"] for block in blocks if block["type"] == "text"]
        missing: list[object] = [text for text in self.texts if text not in "\n".join(said)]
        missing += [block for block in self.blocks if block not in blocks]
        return missing + [pair for pair in self.members.items() if request.body.get(pair[0]) != pair[1]]


@dataclass(frozen=True)
class Shape:
    """What is to be seen of a program.

    Attributes:
        outputs: of its check.
        asked: the requests of its check, in any order.
        answers: those of the LM, in turn.
        extra: what is kept beside the outputs.
        never: members that no request has.
        adapters: on which it runs.
    """

    outputs: Mapping[str, Any]
    asked: tuple[Asked, ...]
    answers: tuple[Script, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    never: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ON_AN_LM


TRIAGE = {"urgency": "high", "team": "printers"}
FIRE = "The printer is on fire."


def _opinion(inputs: Mapping[str, str]) -> Mapping[str, Any]:
    return {"opinion": f"printer {inputs['member']}"} if "member" in inputs else {"answer": "printer 2"}


def _translation(inputs: Mapping[str, str]) -> Mapping[str, Any]:
    return {"translation": {"French": "Bonjour", "German": "Guten Morgen"}[inputs["language"]]}


def _two_step(request: Request) -> Answer:
    if request.body["model"] == REASONS:
        return Answer("It burns, so look at once; the people of the printers should.")
    return fields(**TRIAGE)(request)


MEETING = {"title": "Tea", "day": "2026-12-04", "starts": "15:00:00", "people": [{"name": "Ann"}], "room": "library"}
INVOICE = {
    "id": "01234567-89ab-4def-8123-456789abcdef",
    "total": "12.50",
    "items": [{"text": "toner", "price": "12.50"}],
    "page": "https://example.org/7",
}
STOCK_CALL = fields(next_thought="Count.", next_tool_name="stock_of", next_tool_args={"item": "toner"})
PRICE_CALL = fields(next_thought="Ask.", next_tool_name="price_of", next_tool_args={"item": "toner"})
FINISH = fields(next_thought="Done.", next_tool_name="finish", next_tool_args={})

SHAPES: Mapping[str, Shape] = {
    # Signatures
    "predict": Shape(
        outputs=TRIAGE,
        asked=(Asked("what the customer wrote", "Judge how urgent a ticket is.", f"[[ ## ticket ## ]]\n{FIRE}"),),
        answers=(fields(**TRIAGE),),
    ),
    "arrow": Shape(
        outputs={"urgency": "high", "tags": ["fire"]},
        asked=(
            Asked("must exactly match", "[[ ## k ## ]]\n3", temperature=0.2, max_completion_tokens=300, stop=["END"]),
        ),
        answers=(fields(urgency="high", tags=["fire"]),),
    ),
    "declared_reasoning": Shape(
        outputs={"reasoning": "As you say, it works.", "close": True},
        asked=(Asked("`reasoning` (str): at most one sentence, for the customer", "must be True or False"),),
        answers=(fields(reasoning="As you say, it works.", close=True),),
    ),
    "extra_outputs": Shape(
        outputs={"label": "low"},
        extra={"reasoning": "It works."},
        asked=(Asked("`reasoning` (str)", "low or high"),),
        answers=(fields(reasoning="It works.", label="low"),),
    ),
    "optional_inputs": Shape(
        outputs={"reply": "I am glad.", "confidence": 0.9},
        asked=(Asked("[[ ## tone ## ]]\nkind", "[[ ## words ## ]]\n40", "less than or equal to: 1"),),
        answers=(fields(reply="I am glad.", confidence=0.9),),
    ),
    "any_json": Shape(
        outputs={"found": {"Name": "Ann", "Rooms": [3, 4]}, "rest": [None, {"x": 1.5}]},
        asked=(Asked("`found` (dict[str, Any]): by the names in the form"),),
        answers=(fields(found={"Name": "Ann", "Rooms": [3, 4]}, rest=[None, {"x": 1.5}]),),
    ),
    "nested_models": Shape(
        outputs={"meetings": [MEETING], "next": "2026-12-04"},
        asked=(
            Asked(
                "[[ ## sent ## ]]\n2026-11-30", '"title": "Meeting"', '"format": "date"', "Something in the calendar."
            ),
        ),
        answers=(fields(meetings=[MEETING], next="2026-12-04"),),
    ),
    "discriminated_union": Shape(
        outputs={"wish": {"kind": "refund", "order": 7}, "others": [{"kind": "move", "street": "Elm", "zipCode": "1"}]},
        asked=(Asked("`wish` (Union[Refund, Move])", '"const": "refund"', '"zipCode"'),),
        answers=(
            fields(wish={"kind": "refund", "order": 7}, others=[{"kind": "move", "street": "Elm", "zipCode": "1"}]),
        ),
    ),
    "decimals_and_ids": Shape(
        outputs=INVOICE,
        asked=(Asked("[[ ## limit ## ]]\n99.90", "`id` (UUID)", "`total` (Decimal)", "list[Item]"),),
        answers=(fields(**INVOICE),),
    ),
    "tuples_and_sets": Shape(
        outputs={"place": [53.1, 8.8], "tags": ["depot", "north"]},
        asked=(Asked("`within` (tuple[float, float])", "[[ ## within ## ]]\n[53.0, 8.8]", "`tags` (set[str])"),),
        answers=(fields(place=[53.1, 8.8], tags=["north", "depot", "north"]),),
    ),
    "recursive": Shape(
        outputs={"outline": {"title": "Printers", "parts": [{"title": "Paper", "parts": [{"title": "Tray 2"}]}]}},
        asked=(Asked("`outline` (Part)", "A part of a manual.", '"$ref": "#/$defs/Part"'),),
        answers=(fields(outline={"title": "Printers", "parts": [{"title": "Paper", "parts": [{"title": "Tray 2"}]}]}),),
    ),
    "model_schema": Shape(
        outputs={"meeting": MEETING},
        asked=(Asked("`meeting` (Meeting)", "Something in the calendar.", '"$ref": "#/$defs/Person"'),),
        answers=(fields(meeting=MEETING),),
    ),
    "json_schema": Shape(
        outputs={"order": {"sku": "ABC-12", "count": 2, "ship-to": "Elm Street"}, "express": False},
        asked=(Asked("`order` (Order)", '"ship-to"', "^[A-Z]{3}-[0-9]+$"),),
        answers=(fields(order={"sku": "ABC-12", "count": 2, "ship-to": "Elm Street"}, express=False),),
    ),
    "rules_of_its_own": Shape(
        outputs={"order": {"sku": "ab-12", "count": 2, "street": "Elm Street"}},
        asked=(Asked("`order` (Order)", "where it goes", '"exclusiveMinimum": 0'),),
        answers=(fields(order={"sku": "ab-12", "count": 2, "street": "Elm Street"}),),
    ),
    # Attachments, and what was said before
    "image": Shape(
        outputs={"part": "tray 2"},
        asked=(
            Asked(
                "Name the part in the photo.",
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgp0aGUgYnJva2VuIHBhcnQ="}},
                {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlhIG9mIGEgdHJheQ=="}},
            ),
        ),
        answers=(fields(part="tray 2"),),
    ),
    "history": Shape(
        outputs={"answer": "In room 114."},
        asked=(Asked("[[ ## question ## ]]\nWhere is the paper?", "[[ ## answer ## ]]\nIn tray 2.", "And the toner?"),),
        answers=(fields(answer="In room 114."),),
    ),
    "document": Shape(
        outputs={"number": 42},
        asked=(
            Asked(
                "Find the number of the contract.",
                {
                    "type": "file",
                    "file": {
                        "file_data": "data:application/pdf;base64,JVBERi0xLjcgY29udHJhY3QgNDI=",
                        "filename": "contract.pdf",
                    },
                },
            ),
        ),
        answers=(fields(number=42),),
    ),
    "audio": Shape(
        outputs={"text": "It is on fire."},
        asked=(Asked({"type": "input_audio", "input_audio": {"data": "UklGRiAgICBXQVZFZm10IA==", "format": "wav"}}),),
        answers=(fields(text="It is on fire."),),
    ),
    # Modules of one's own
    "retriever": Shape(
        outputs={"answer": "In tray 2.", "sources": ["Tray 2 takes A4 paper only.", "Toner is in room 114."]},
        extra={"reasoning": "It says so."},
        asked=(
            Asked("[[ ## question ## ]]\nWhere do I put the paper?", "[[ ## query ## ]]"),
            Asked('["Tray 2 takes A4 paper only.", "Toner is in room 114."]'),
        ),
        answers=(fields(query="paper tray"), fields(reasoning="It says so.", answer="In tray 2.")),
    ),
    "factory": Shape(
        outputs={"label": "low"},
        asked=(Asked('["Fire is high.", "Chairs are low."]', "[[ ## ticket ## ]]\nThe chair squeaks."),),
        answers=(fields(reasoning="A chair.", label="low"),),
    ),
    "async_module": Shape(
        outputs={"answer": "printer 2"},
        asked=(
            *(Asked(f"[[ ## member ## ]]\n{number}") for number in range(3)),
            Asked('["printer 0", "printer 1", "printer 2"]'),
        ),
        answers=(answers_by(_opinion),),
    ),
    "parallel": Shape(
        outputs={"translations": {"French": "Bonjour", "German": "Guten Morgen"}},
        asked=(Asked("[[ ## language ## ]]\nFrench"), Asked("[[ ## language ## ]]\nGerman")),
        answers=(answers_by(_translation),),
    ),
    "judge": Shape(
        outputs={"answer": "Yes.", "is_right": True},
        asked=(Asked("Is the toner in room 114?"), Asked("[[ ## answer ## ]]\nYes.", model=LARGE, temperature=0.0)),
        answers=(fields(answer="Yes."), fields(is_right=True)),
    ),
    "parts": Shape(
        outputs={"answer": "Yes.", "is_right": True},
        asked=(
            Asked("Is the toner in room 114?"),
            Asked("`reasoning` (str)", "[[ ## answer ## ]]\nYes.", model=LARGE),
        ),
        answers=(fields(answer="Yes."), fields(reasoning="It is there.", is_right=True)),
    ),
    "async_tool": Shape(
        outputs={"answer": "12.50 EUR"},
        asked=(
            Asked("(1) price_of, whose description is <desc>What an item costs.</desc>"),
            Asked("12.50 EUR"),
            Asked("12.50 EUR"),
        ),
        answers=(PRICE_CALL, FINISH, fields(answer="12.50 EUR")),
    ),
    "environment": Shape(
        outputs={"answer": "In room 114."},
        asked=(Asked('["Toner is in room 114."]', "Where is the toner?"),),
        answers=(fields(answer="In room 114."),),
        adapters=("python_port",),
    ),
    "older_dspy": Shape(
        outputs={"answer": "In room 114.", "dspy_version": "3.1.3"},
        asked=(Asked("`reasoning` (str)", "Where is the toner?"),),
        answers=(fields(reasoning="It is there.", answer="In room 114."),),
        adapters=("python_port",),
    ),
    # DSPy's modules
    "agent": Shape(
        outputs={"answer": "37.50 EUR"},
        extra={
            "trajectory": {
                "thought_0": "Count.",
                "tool_name_0": "stock_of",
                "tool_args_0": {"item": "toner"},
                "observation_0": 3,
                "thought_1": "Ask.",
                "tool_name_1": "price_of",
                "tool_args_1": {"item": "toner"},
                "observation_1": "12.50 EUR",
                "thought_2": "Done.",
                "tool_name_2": "finish",
                "tool_args_2": {},
                "observation_2": "Completed.",
            }
        },
        asked=(
            Asked("(1) stock_of, whose description is <desc>How many there are of an item.</desc>", "(2) price_of"),
            Asked("[[ ## observation_0 ## ]]\n3"),
            Asked("[[ ## observation_1 ## ]]\n12.50 EUR"),
            Asked("[[ ## observation_2 ## ]]\nCompleted."),
        ),
        answers=(STOCK_CALL, PRICE_CALL, FINISH, fields(answer="37.50 EUR")),
    ),
    "best_of_n": Shape(
        outputs={"answer": "Room 114."},
        asked=(Asked("Where is the toner?"), Asked("Where is the toner?")),
        answers=(fields(answer="It is in the room 114."), fields(answer="Room 114.")),
    ),
    "refine": Shape(
        outputs={"answer": "Room 114."},
        asked=(Asked("Where is the toner?"), Asked("1 for at most three words."), Asked("Say less.")),
        answers=(
            fields(answer="It is in the room 114."),
            fields(discussion="Too long.", advice={"self": "Say less.", "predict": "Say less."}),
            fields(answer="Room 114."),
        ),
    ),
    "chains": Shape(
        outputs={"label": "low"},
        asked=(
            Asked("The chair squeaks.", temperature=0.7),
            Asked("The chair squeaks.", temperature=0.7),
            Asked(
                "«I'm trying to A chair. I'm not sure but my prediction is low»",
                "[[ ## reasoning_attempt_2 ## ]]\n«I'm trying to A noise.",
            ),
        ),
        answers=(
            fields(reasoning="A chair.", label="low"),
            fields(reasoning="A noise.", label="high"),
            fields(rationale="A chair it is.", label="low"),
        ),
    ),
    # Formats of prompts
    "prompt_chat": Shape(
        outputs=TRIAGE, asked=(Asked("[[ ## completed ## ]]", "`[[ ## urgency ## ]]`"),), answers=(fields(**TRIAGE),)
    ),
    "prompt_json": Shape(
        outputs=TRIAGE,
        asked=(Asked("Respond with a JSON object in the following order of fields: `urgency`"),),
        answers=(fields(**TRIAGE),),
    ),
    "prompt_xml": Shape(
        outputs=TRIAGE,
        asked=(Asked(f"<ticket>\n{FIRE}\n</ticket>", "<urgency>"),),
        answers=(text("<urgency>\nhigh\n</urgency>\n<team>\nprinters\n</team>"),),
    ),
    "prompt_baml": Shape(
        outputs=TRIAGE,
        asked=(Asked("Output field `urgency` should be of type: Urgency"),),
        answers=(text('{"urgency": "high", "team": "printers"}'),),
    ),
    "prompt_terse": Shape(
        outputs=TRIAGE,
        asked=(Asked("Judge how urgent a ticket is.\nNo word too many."),),
        answers=(fields(**TRIAGE),),
    ),
    "prompt_two_step": Shape(
        outputs=TRIAGE,
        asked=(
            Asked(FIRE, model=REASONS),
            Asked("It burns, so look at once; the people of the printers should.", model=SMALL),
        ),
        answers=(_two_step,),
    ),
    # What optimizers found
    "labeled_few_shot": Shape(
        outputs={"label": "high"},
        asked=(Asked("The chair squeaks.", "Please update my phone number.", "Nobody can print."),),
        answers=(fields(label="high"),),
    ),
    "bootstrap_few_shot": Shape(
        outputs={"answer": "In room 114."},
        asked=(
            Asked("Why does the VPN fail?", "[[ ## query ## ]]\npaper tray", "Where is the toner?"),
            Asked("The manual says so.", "Get the new certificate.", "Toner is in room 114."),
        ),
        answers=(fields(query="toner"), fields(reasoning="It says so.", answer="In room 114.")),
    ),
    "mipro_v2": Shape(
        outputs={"label": "high"},
        asked=(Asked("A ticket is high if somebody cannot work, or is in danger.", "[[ ## reasoning ## ]]"),),
        answers=(fields(reasoning="They cannot work.", label="high"),),
    ),
    "gepa": Shape(
        outputs={"label": "high"},
        asked=(Asked("A ticket is high if somebody cannot work, or is in danger.", "Nobody can print."),),
        answers=(fields(label="high"),),
    ),
    # Settings of LMs
    "reasoning_model": Shape(
        outputs={"label": "low"},
        asked=(Asked("The chair squeaks.", model=REASONS, reasoning_effort="low", max_completion_tokens=5000),),
        answers=(fields(label="low"),),
        never=("temperature", "max_tokens"),
    ),
    "votes": Shape(
        outputs={"label": "low"},
        asked=tuple(Asked(temperature=1.0, logit_bias={"50256": -100}) for _ in range(3)),
        answers=(fields(label="high"), fields(label="low"), fields(label="low")),
        never=("n",),
    ),
    "fallback": Shape(
        outputs={"label": "low"},
        asked=(Asked(model=SMALL), Asked(model=LARGE)),
        answers=(rate_limited(), fields(label="low")),
    ),
}
"""By the names of their files. The check of each is in its file."""
