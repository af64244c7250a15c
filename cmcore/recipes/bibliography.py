"""The papers that the recipes come from, as BibTeX."""

BIBTEX = {
    "karras2022": """@inproceedings{karras2022elucidating,
  title={Elucidating the Design Space of Diffusion-Based Generative Models},
  author={Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  booktitle={Advances in Neural Information Processing Systems},
  year={2022}
}""",
    "song2023": """@inproceedings{song2023consistency,
  title={Consistency Models},
  author={Song, Yang and Dhariwal, Prafulla and Chen, Mark and Sutskever, Ilya},
  booktitle={International Conference on Machine Learning},
  year={2023}
}""",
    "geng2024": """@inproceedings{geng2025consistency,
  title={Consistency Models Made Easy},
  author={Geng, Zhengyang and Pokle, Ashwini and Luo, William and Lin, Justin and Kolter, J. Zico},
  booktitle={International Conference on Learning Representations},
  year={2025}
}""",
    "song2024": """@inproceedings{song2024improved,
  title={Improved Techniques for Training Consistency Models},
  author={Song, Yang and Dhariwal, Prafulla},
  booktitle={International Conference on Learning Representations},
  year={2024}
}""",
    "salimans2022": """@inproceedings{salimans2022progressive,
  title={Progressive Distillation for Fast Sampling of Diffusion Models},
  author={Salimans, Tim and Ho, Jonathan},
  booktitle={International Conference on Learning Representations},
  year={2022}
}""",
    "lee2024": """@inproceedings{lee2025truncated,
  title={Truncated Consistency Models},
  author={Lee, Sangyun and Xu, Yilun and Geffner, Tomas and Fanti, Giulia and Kreis, Karsten and Vahdat, Arash and Nie, Weili},
  booktitle={International Conference on Learning Representations},
  year={2025}
}""",
    "wang2024": """@article{wang2024stable,
  title={Stable Consistency Tuning: Understanding and Improving Consistency Models},
  author={Wang, Fu-Yun and Geng, Zhengyang and Li, Hongsheng},
  journal={arXiv preprint arXiv:2410.18958},
  year={2024}
}""",
    "hu2025": """@article{hu2025cmt,
  title={{CMT}: Mid-Training for Efficient Learning of Consistency, Mean Flow, and Flow Map Models},
  author={Hu, Zheyuan and Lai, Chieh-Hsin and Mitsufuji, Yuki and Ermon, Stefano},
  journal={arXiv preprint arXiv:2509.24526},
  year={2025}
}""",
    "lu2024": """@inproceedings{lu2025simplifying,
  title={Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models},
  author={Lu, Cheng and Song, Yang},
  booktitle={International Conference on Learning Representations},
  year={2025}
}""",
    "geng2025": """@article{geng2025mean,
  title={Mean Flows for One-step Generative Modeling},
  author={Geng, Zhengyang and Deng, Mingyang and Bai, Xingjian and Kolter, J. Zico and He, Kaiming},
  journal={arXiv preprint arXiv:2505.13447},
  year={2025}
}""",
    "geng2025imf": """@article{geng2025improved,
  title={Improved Mean Flows: On the Challenges of Fastforward Generative Models},
  author={Geng, Zhengyang and others},
  journal={arXiv preprint arXiv:2512.02012},
  year={2025}
}""",
    "boffi2025": """@article{boffi2025build,
  title={How to build a consistency model: Learning flow maps via self-distillation},
  author={Boffi, Nicholas M. and Albergo, Michael S. and Vanden-Eijnden, Eric},
  journal={arXiv preprint arXiv:2505.18825},
  year={2025}
}""",
    "guo2025": """@article{guo2025splitmeanflow,
  title={{SplitMeanFlow}: Interval Splitting Consistency in Few-Step Generative Modeling},
  author={Guo, Yi and others},
  journal={arXiv preprint arXiv:2507.16884},
  year={2025}
}""",
    "frans2025": """@inproceedings{frans2025one,
  title={One Step Diffusion via Shortcut Models},
  author={Frans, Kevin and Hafner, Danijar and Levine, Sergey and Abbeel, Pieter},
  booktitle={International Conference on Learning Representations},
  year={2025}
}""",
    "kim2024": """@inproceedings{kim2024consistency,
  title={Consistency Trajectory Models: Learning Probability Flow {ODE} Trajectory of Diffusion},
  author={Kim, Dongjun and Lai, Chieh-Hsin and Liao, Wei-Hsiang and Murata, Naoki and Takida, Yuhta and Uesaka, Toshimitsu and He, Yutong and Mitsufuji, Yuki and Ermon, Stefano},
  booktitle={International Conference on Learning Representations},
  year={2024}
}""",
    "sabour2025": """@article{sabour2025align,
  title={Align Your Flow: Scaling Continuous-Time Flow Map Distillation},
  author={Sabour, Amirmojtaba and Fidler, Sanja and Kreis, Karsten},
  journal={arXiv preprint arXiv:2506.14603},
  year={2025}
}""",
    "luo2025": """@article{luo2025soflow,
  title={{SoFlow}: Solution Flow Models for One-Step Generative Modeling},
  author={Luo, Tianze and Yuan, Haotian and Liu, Zhuang},
  journal={arXiv preprint arXiv:2512.15657},
  year={2025}
}""",
    "zhou2025": """@inproceedings{zhou2025inductive,
  title={Inductive Moment Matching},
  author={Zhou, Linqi and Ermon, Stefano and Song, Jiaming},
  booktitle={International Conference on Machine Learning},
  year={2025}
}""",
}
