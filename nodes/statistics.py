"""The nodes for many concepts: lists in files, and statistics that are kept between runs."""

from comfy_api.latest import io, ui

from ..erasure_core.concepts import parse_prompts
from ..erasure_core.gathering import restored
from ..erasure_core.inputs import read_list
from ..erasure_core.lists import list_text
from ..erasure_core.statistics_files import load_statistics, save_statistics
from . import host, host_files
from .checks import checked
from .host_reading import reader
from .sockets import CATEGORY, Statistics


class ErasureLoadConcepts(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ErasureLoadConcepts",
            display_name="Load Concepts",
            category=CATEGORY,
            description="Reads concepts or prompts from a text file, one a line, or from a column of a table, to "
            "connect where they are typed otherwise.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host_files.list_files(),
                    tooltip="A .txt, .csv or .tsv file of ComfyUI's input folder, in UTF-8.",
                ),
                io.String.Input(
                    "column",
                    default="",
                    optional=True,
                    placeholder="concept",
                    tooltip="Of a .csv or .tsv: the column to read, as its first line names it.",
                ),
            ],
            outputs=[io.String.Output(display_name="STRING", tooltip="The text of the file, or its column's lines.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file, column=""):
        return host_files.digest(host_files.list_path(file)), column

    @classmethod
    @checked
    def execute(cls, file, column="") -> io.NodeOutput:
        return io.NodeOutput(list_text(read_list(host_files.list_path(file)), file, column))


class ErasureRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ErasureRestore",
            display_name="Restore Concepts",
            category=CATEGORY,
            description="Takes concepts back out of statistics, as if they had never been named. Connect the result to "
            "'Erase Concepts (RECE)', on the model without the erasure.",
            inputs=[
                io.Model.Input("model", tooltip="A model with the text encoder that the statistics are of."),
                io.Clip.Input("clip", tooltip="Its text encoder: it encodes what is taken back, once more."),
                Statistics.Input("statistics", tooltip="From 'Erase Concepts (RECE)' or 'Load Statistics'."),
                io.String.Input(
                    "names", multiline=True, default="", placeholder="van gogh", tooltip="What to take back, one a line"
                ),
            ],
            outputs=[Statistics.Output(display_name="STATISTICS", tooltip="The statistics without these concepts.")],
        )

    @classmethod
    @checked
    def execute(cls, model, clip, statistics, names) -> io.NodeOutput:
        taken = parse_prompts(names, "names")
        if not taken:
            raise ValueError("names is empty: write the concepts to take back, one a line")
        return io.NodeOutput(restored(statistics, reader(model, clip), taken, callback=host.progress()))


class ErasureSaveStatistics(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ErasureSaveStatistics",
            display_name="Save Statistics",
            category=CATEGORY,
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
        folder = host_files.STATISTICS
        path = str(host_files.saved(folder, filename_prefix, lambda target: save_statistics(statistics, target)))
        return io.NodeOutput(path, ui=ui.PreviewText(path))


class ErasureLoadStatistics(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ErasureLoadStatistics",
            display_name="Load Statistics",
            category=CATEGORY,
            description="Reads a file that Save Statistics wrote.",
            inputs=[
                io.Combo.Input(
                    "file", options=host_files.statistics_files(), tooltip="A file of output/erasure-statistics."
                )
            ],
            outputs=[
                Statistics.Output(display_name="STATISTICS", tooltip="To add concepts to, in 'Erase Concepts (RECE)'.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file):
        return host_files.stamp(host_files.statistics_path(file))

    @classmethod
    @checked
    def execute(cls, file) -> io.NodeOutput:
        return io.NodeOutput(load_statistics(host_files.statistics_path(file)))
