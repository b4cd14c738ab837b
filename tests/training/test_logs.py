"""What loggers are told of a run."""

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from p2p.training.logs import log_settings, settings_of
from tests.test_configs import compose_command


def test_settings_are_those_that_make_a_training_another():
    settings = settings_of(compose_command("train", ["optimizer.lr=0.5", "losses.l1.weight=3", "data.root=here"]))
    expected = {"optimizer.lr": 0.5, "losses.l1.weight": 3, "data.root": "here", "generator": "UNet", "batch_size": 1}
    expected |= {"model.lambda_l1": 100, "optimizer.betas": "[0.5,0.999]", "model.clip_norm": "null"}
    assert expected.items() <= settings.items()
    assert all(isinstance(value, (bool, int, float, str)) for value in settings.values())
    assert not [key for key in settings if key.startswith(("callbacks", "logger", "trainer", "model.optimizer"))]
    assert "generator.image_size" not in settings  # follows from image_size


def test_tensorboard_has_a_row_of_settings_and_scores_and_every_logger_the_settings(tmp_path):
    board = TensorBoardLogger(tmp_path, name="board", default_hp_metric=False)
    table = CSVLogger(tmp_path, name="csv")
    cfg = compose_command("train", ["optimizer.lr=0.5"])
    log_settings([board, table], cfg, None)  # a run that goes on
    log_settings([board, table], cfg, {"val/L1": 0.25})
    board.log_metrics({"val/L1": 0.125}, step=7)
    for logger in (board, table):
        logger.save()
    events = EventAccumulator(board.log_dir).Reload()
    assert [event.value for event in events.Scalars("val/L1")] == [0.25, 0.125]
    told = events.summary_metadata
    starts = plugin_data_pb2.HParamsPluginData.FromString(told[metadata.SESSION_START_INFO_TAG].plugin_data.content)
    assert starts.session_start_info.hparams["optimizer.lr"].number_value == 0.5
    assert starts.session_start_info.hparams["generator"].string_value == "UNet"
    scores = plugin_data_pb2.HParamsPluginData.FromString(told[metadata.EXPERIMENT_TAG].plugin_data.content)
    assert [metric.name.tag for metric in scores.experiment.metric_infos] == ["val/L1"]
    assert "optimizer.lr: 0.5" in (tmp_path / "csv/version_0/hparams.yaml").read_text()
