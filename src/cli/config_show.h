/* `config show` */
#pragma once

#include "cli/cli.h"

int config_show_run(struct cli *cli);
