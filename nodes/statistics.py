"""The nodes for many concepts: lists in files, and statistics that are kept between runs."""

from __future__ import annotations

from comfy_api.latest import io

from ..erasure_core.closed_form.statistics_file import load_statistics, save_statistics
from ..erasure_core.closed_form.update import restored
from ..erasure_core.concepts.lists import list_text
from ..erasure_core.concepts.parse import parse_prompts
from ..erasure_core.files.bounded_text import read_list
from .comfy_host.files import (
    STATISTICS,
    digest,
    list_files,
    list_path,
    save_numbered,
    stamp,
    statistics_files,
    statistics_path,
)
from .comfy_host.open_model import reader
from .comfy_host.progress import progress
from .input_checks import checked
from .inputs import MANY, Statistics
from .schema import completed, schema


class ErasureLoadConcepts(io.ComfyNode):
    """Reads a list of concepts or prompts, as text, from a file in ComfyUI's input folder."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureLoadConcepts",
            display_name="Load Concepts (Erasure)",
            category=MANY,
            search_aliases=("text file", "csv", "list of concepts", "many concepts", "artists"),
            description="Reads concepts or prompts from a text file, one a line, or from a column of a table, to "
            "connect where they are typed otherwise.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list_files(),
                    tooltip="A .txt, .csv or .tsv file of ComfyUI's input folder, in UTF-8.",
                ),
                io.String.Input(
                    "column",
                    default="",
                    optional=True,
                    placeholder="The name of a column",
                    tooltip="Of a .csv or .tsv: the column to read, as its first line names it.",
                ),
            ],
            outputs=[io.String.Output(display_name="STRING", tooltip="The text of the file, or its column's lines.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file, column=""):
        return digest(list_path(file)), column

    @classmethod
    @checked
    def execute(cls, file, column="") -> io.NodeOutput:
        return io.NodeOutput(list_text(read_list(list_path(file)), file, column))


class ErasureRestore(io.ComfyNode):
    """Takes concepts out of STATISTICS with ``restored``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureRestore",
            display_name="Restore Concepts (Erasure)",
            category=MANY,
            search_aliases=("undo", "bring back", "relearn"),
            description="Takes concepts back out of statistics, as if they had never been named. Connect the result to "
            "'Erase Concepts (RECE)', on the model without the erasure.",
            inputs=[
                io.Model.Input("model", tooltip="A model with the text encoder that the statistics are of."),
                io.Clip.Input("clip", tooltip="Its text encoder: it encodes what is taken back, once more."),
                Statistics.Input("statistics", tooltip="From 'Erase Concepts (RECE)' or 'Load Statistics'."),
                completed(
                    io.String.Input(
                        "names",
                        multiline=True,
                        default="",
                        placeholder="What to take back, one concept a line",
                        tooltip="What to take back, one a line.",
                    )
                ),
            ],
            outputs=[Statistics.Output(display_name="STATISTICS", tooltip="The statistics without these concepts.")],
        )

    @classmethod
    @checked
    def execute(cls, model, clip, statistics, names) -> io.NodeOutput:
        names_to_restore = parse_prompts(names, "names")
        if not names_to_restore:
            raise ValueError("names is empty: write the concepts to take back, one a line")
        return io.NodeOutput(restored(statistics, reader(model, clip), names_to_restore, callback=progress()))


class ErasureSaveStatistics(io.ComfyNode):
    """Writes STATISTICS to a numbered file with ``save_statistics``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureSaveStatistics",
            display_name="Save Statistics (Erasure)",
            category=MANY,
            search_aliases=("many concepts", "continue later"),
            description="Writes statistics to a new file in output/erasure-statistics, so that another concept can be "
            "added, or one taken back, without encoding all of them again.",
            inputs=[
                Statistics.Input("statistics", tooltip="From 'Erase Concepts (RECE)'."),
                io.String.Input(
                    "filename_prefix", default="concepts", tooltip="The beginning of the file's name; a number follows."
                ),
            ],
            is_output_node=True,
            outputs=[io.String.Output(display_name="path", tooltip="Where the file is.")],
        )

    @classmethod
    @checked
    def execute(cls, statistics, filename_prefix) -> io.NodeOutput:
        folder = STATISTICS
        path = str(save_numbered(folder, filename_prefix, lambda target: save_statistics(statistics, target)))
        return io.NodeOutput(path, ui={"text": (path,), "saved": (True,)})


class ErasureLoadStatistics(io.ComfyNode):
    """Reads STATISTICS from a file that the node for saving wrote."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureLoadStatistics",
            display_name="Load Statistics (Erasure)",
            category=MANY,
            search_aliases=("many concepts", "continue later"),
            description="Reads a file that Save Statistics wrote.",
            inputs=[io.Combo.Input("file", options=statistics_files(), tooltip="A file of output/erasure-statistics.")],
            outputs=[
                Statistics.Output(display_name="STATISTICS", tooltip="To add concepts to, in 'Erase Concepts (RECE)'.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file):
        return stamp(statistics_path(file))

    @classmethod
    @checked
    def execute(cls, file) -> io.NodeOutput:
        return io.NodeOutput(load_statistics(statistics_path(file)))
