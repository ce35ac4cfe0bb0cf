"""Papers whose authors, title and place are known: what info records name in short.

Names are in BibTeX's form, ``Last, First and Last, First``. Lists that could not be checked are
left at the first author ``and others``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """One publication."""

    authors: str
    title: str
    year: int | None
    arxiv: str = ""
    doi: str = ""
    url: str = ""
    """Where there is neither"""
    proceedings: str = ""
    journal: str = ""


_NEURIPS = "Advances in Neural Information Processing Systems"
_ICML = "International Conference on Machine Learning"
_ICLR = "International Conference on Learning Representations"
_AAAI = "Proceedings of the AAAI Conference on Artificial Intelligence"

CAB = Paper(
    "Zhang, Jun and Jiang, Shuyang and Feng, Jiangtao and Zheng, Lin and Kong, Lingpeng",
    "CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling",
    2023, "2210.07661", proceedings=_ICML,
)  # fmt: skip
"""The benchmark that the suite follows"""

PAPERS = (
    CAB,
    Paper(
        "Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion "
        "and Gomez, Aidan N. and Kaiser, Łukasz and Polosukhin, Illia",
        "Attention Is All You Need", 2017, "1706.03762", proceedings=_NEURIPS,
    ),
    Paper(
        "Peng, Hao and Kasai, Jungo and Pappas, Nikolaos and Yogatama, Dani and Wu, Zhaofeng and "
        "Kong, Lingpeng and Schwartz, Roy and Smith, Noah A.",
        "ABC: Attention with Bounded-Memory Control", 2022, "2110.02488",
        proceedings="Proceedings of the 60th Annual Meeting of the Association for Computational "
        "Linguistics",
    ),
    Paper(
        "Qin, Zhen and Sun, Weixuan and Deng, Hui and Li, Dongxu and Wei, Yunshen and Lv, Baohong "
        "and Yan, Junjie and Kong, Lingpeng and Zhong, Yiran",
        "cosFormer: Rethinking Softmax in Attention", 2022, "2202.08791", proceedings=_ICLR,
    ),
    Paper(
        "Dao, Tri and Fu, Daniel Y. and Ermon, Stefano and Rudra, Atri and Ré, Christopher",
        "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness",
        2022, "2205.14135", proceedings=_NEURIPS,
    ),
    Paper(
        "Zheng, Lin and Wang, Chong and Kong, Lingpeng",
        "Linear Complexity Randomized Self-attention Mechanism",
        2022, "2204.04667", proceedings=_ICML,
    ),
    Paper(
        "Katharopoulos, Angelos and Vyas, Apoorv and Pappas, Nikolaos and Fleuret, François",
        "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
        2020, "2006.16236", proceedings=_ICML,
    ),
    Paper(
        "Sun, Yutao and Dong, Li and Huang, Shaohan and Ma, Shuming and Xia, Yuqing and Xue, "
        "Jilong and Wang, Jianyong and Wei, Furu",
        "Retentive Network: A Successor to Transformer for Large Language Models",
        2023, "2307.08621",
    ),
    Paper(
        "Qin, Zhen and Sun, Weigao and Li, Dong and Shen, Xuyang and Sun, Weixuan and Zhong, Yiran",
        "Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence Lengths in Large "
        "Language Models",
        2024, "2401.04658",
    ),
    Paper(
        "Yang, Songlin and Wang, Bailin and Shen, Yikang and Panda, Rameswar and Kim, Yoon",
        "Gated Linear Attention Transformers with Hardware-Efficient Training",
        2024, "2312.06635", proceedings=_ICML,
    ),
    Paper(
        "Dao, Tri and Gu, Albert",
        "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured "
        "State Space Duality",
        2024, "2405.21060", proceedings=_ICML,
    ),
    Paper(
        "Yang, Songlin and Wang, Bailin and Zhang, Yu and Shen, Yikang and Kim, Yoon",
        "Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
        2024, "2406.06484", proceedings=_NEURIPS,
    ),
    Paper(
        "Yang, Songlin and Kautz, Jan and Hatamizadeh, Ali",
        "Gated Delta Networks: Improving Mamba2 with Delta Rule",
        2025, "2412.06464", proceedings=_ICLR,
    ),
    Paper(
        "Hatamizadeh, Ali and Choi, Yejin and Kautz, Jan",
        "Gated DeltaNet-2: Decoupling Erase and Write in Linear Attention",
        2026, "2605.22791",
    ),
    Paper(
        "Zuo, Yifei and Yin, Yutong and Zeng, Zhichen and Li, Ang and Zhu, Banghua and "
        "Wang, Zhaoran",
        "Local Linear Attention: An Optimal Interpolation of Linear and Softmax Attention For "
        "Test-Time Regression",
        2025, "2510.01450",
    ),
    Paper(
        "Zuo, Yifei and Pai, Dhruv and Zeng, Zhichen and Dewulf, Alec and Hu, Shuming and "
        "Wang, Zhaoran",
        "Parallax: Parameterized Local Linear Attention for Language Modeling",
        2026, "2605.29157",
    ),
    Paper(
        "Luong, Minh-Thang and Pham, Hieu and Manning, Christopher D.",
        "Effective Approaches to Attention-based Neural Machine Translation", 2015, "1508.04025",
        proceedings="Proceedings of the 2015 Conference on Empirical Methods in Natural Language "
        "Processing",
    ),
    Paper(
        "Wang, Ke Alexander and Shi, Jiaxin and Fox, Emily B.",
        "Test-time regression: a unifying framework for designing sequence models with "
        "associative memory",
        2025, "2501.12352",
    ),
    Paper(
        "Zhu, Chen and Ping, Wei and Xiao, Chaowei and Shoeybi, Mohammad and Goldstein, Tom and "
        "Anandkumar, Anima and Catanzaro, Bryan",
        "Long-Short Transformer: Efficient Transformers for Language and Vision",
        2021, "2107.02192", proceedings=_NEURIPS,
    ),
    Paper(
        "Xiong, Yunyang and Zeng, Zhanpeng and Chakraborty, Rudrasis and Tan, Mingxing and "
        "Fung, Glenn and Li, Yin and Singh, Vikas",
        "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention",
        2021, "2102.03902", proceedings=_AAAI,
    ),
    Paper(
        "Choromanski, Krzysztof and Likhosherstov, Valerii and Dohan, David and Song, Xingyou and "
        "Gane, Andreea and Sarlos, Tamas and Hawkins, Peter and Davis, Jared and Mohiuddin, Afroz "
        "and Kaiser, Łukasz and Belanger, David and Colwell, Lucy and Weller, Adrian",
        "Rethinking Attention with Performers", 2021, "2009.14794", proceedings=_ICLR,
    ),
    Paper(
        "Zhou, Haoyi and Zhang, Shanghang and Peng, Jieqi and Zhang, Shuai and Li, Jianxin and "
        "Xiong, Hui and Zhang, Wancai",
        "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting",
        2021, "2012.07436", proceedings=_AAAI,
    ),
    Paper(
        "Gu, Albert and Gupta, Ankit and Goel, Karan and Ré, Christopher",
        "On the Parameterization and Initialization of Diagonal State Space Models",
        2022, "2206.11893", proceedings=_NEURIPS,
    ),
    Paper(
        "Yu, Zhongzhi and Wang, Zheng and Fu, Yonggan and Shi, Huihong and Shaikh, Khalid and "
        "Lin, Yingyan Celine",
        "Unveiling and Harnessing Hidden Attention Sinks: Enhancing Large Language Models without "
        "Training through Attention Calibration",
        2024, "2406.15765", proceedings=_ICML,
    ),
    Paper(
        "Arif, Kazi Hasan Ibn and others",
        "Fixing Imbalanced Attention to Mitigate In-Context Hallucination of Large "
        "Vision-Language Model",
        2025, "2501.12206",
    ),
    Paper(
        "Kang, Seil and Kim, Jinyeong and Kim, Junhyeok and Hwang, Seong Jae",
        "See What You Are Told: Visual Attention Sink in Large Multimodal Models",
        2025, "2503.03321", proceedings=_ICLR,
    ),
    Paper(
        "Back de Luca, Artur and Giapitzakis, George and Yang, Shenghao and Veličković, Petar and "
        "Fountoulakis, Kimon",
        "Positional Attention: Expressivity and Learnability of Algorithmic Computation",
        2025, "2410.01686", proceedings=_ICML,
    ),
    Paper(
        "Arora, Simran and Eyuboglu, Sabri and Timalsina, Aman and Johnson, Isys and "
        "Poli, Michael and Zou, James and Rudra, Atri and Ré, Christopher",
        "Zoology: Measuring and Improving Recall in Efficient Language Models",
        2024, "2312.04927", proceedings=_ICLR,
    ),
    Paper(
        "Tay, Yi and Dehghani, Mostafa and Abnar, Samira and Shen, Yikang and Bahri, Dara and "
        "Pham, Philip and Rao, Jinfeng and Yang, Liu and Ruder, Sebastian and Metzler, Donald",
        "Long Range Arena: A Benchmark for Efficient Transformers",
        2021, "2011.04006", proceedings=_ICLR,
    ),
    Paper(
        "Meinecke, Steffen and Sarajlić, Džanan and Drauz, Simon Ruben and Klettke, Annika and "
        "Lauven, Lars-Peter and Rehtanz, Christian and Moser, Albert and Braun, Martin",
        "SimBench: A Benchmark Dataset of Electric Power Systems to Compare Innovative Solutions "
        "Based on Power Flow Analysis",
        2020, doi="10.3390/en13123290", journal="Energies",
    ),
    Paper(
        "He, Jianliang and Pan, Xintian and Chen, Siyu and Yang, Zhuoran",
        "In-Context Linear Regression Demystified: Training Dynamics and Mechanistic "
        "Interpretability of Multi-Head Softmax Attention",
        2025, "2503.12734", proceedings=_ICML,
    ),
    Paper(
        "Shukla, Satya Narayan and Marlin, Benjamin M.",
        "Multi-Time Attention Networks for Irregularly Sampled Time Series",
        2021, "2101.10318", proceedings=_ICLR,
    ),
    Paper(
        "Zhang, Xinlu and Li, Shiyang and Chen, Zhiyu and Yan, Xifeng and Petzold, Linda Ruth",
        "Improving Medical Predictions by Irregular Multimodal Electronic Health Records Modeling",
        2023, "2210.12156", proceedings=_ICML,
    ),
    Paper(
        "Yu, Chengqing and others",
        "GinAR: An End-To-End Multivariate Time Series Forecasting Model Suitable for Variable "
        "Missing",
        2024, "2405.11333",
        proceedings="ACM SIGKDD Conference on Knowledge Discovery and Data Mining",
    ),
    Paper(
        "Mohtashami, Amirkeivan and Jaggi, Martin",
        "Landmark Attention: Random-Access Infinite Context Length for Transformers",
        2023, "2305.16300",
    ),
    Paper(
        "Yu, Xumin and Rao, Yongming and Wang, Ziyi and Liu, Zuyan and Lu, Jiwen and Zhou, Jie",
        "PoinTr: Diverse Point Cloud Completion with Geometry-Aware Transformers",
        2021, "2108.08839", proceedings="IEEE/CVF International Conference on Computer Vision",
    ),
    Paper(
        "Fang, Yini and others",
        "OAT: Object-Level Attention Transformer for Gaze Scanpath Prediction",
        2024, "2407.13335", proceedings="European Conference on Computer Vision",
    ),
    Paper(
        "Fabbri, Alexander R. and Li, Irene and She, Tianwei and Li, Suyi and Radev, Dragomir R.",
        "Multi-News: A Large-Scale Multi-Document Summarization Dataset and Abstractive "
        "Hierarchical Model",
        2019, "1906.01749",
        proceedings="Proceedings of the 57th Annual Meeting of the Association for Computational "
        "Linguistics",
    ),
    Paper(
        "Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and "
        "Zhai, Xiaohua and Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and "
        "Heigold, Georg and Gelly, Sylvain and Uszkoreit, Jakob and Houlsby, Neil",
        "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        2021, "2010.11929", proceedings=_ICLR,
    ),
    Paper(
        "Saharia, Chitwan and Ho, Jonathan and Chan, William and Salimans, Tim and "
        "Fleet, David J. and Norouzi, Mohammad",
        "Image Super-Resolution via Iterative Refinement", 2021, "2104.07636",
    ),
    Paper(
        "Ren, Yi and Hu, Chenxu and Tan, Xu and Qin, Tao and Zhao, Sheng and Zhao, Zhou and "
        "Liu, Tie-Yan",
        "FastSpeech 2: Fast and High-Quality End-to-End Text to Speech",
        2021, "2006.04558", proceedings=_ICLR,
    ),
    Paper(
        "Li, Naihan and Liu, Shujie and Liu, Yanqing and Zhao, Sheng and Liu, Ming",
        "Neural Speech Synthesis with Transformer Network", 2019, "1809.08895", proceedings=_AAAI,
    ),
    Paper(
        "Chen, Yinbo and Liu, Sifei and Wang, Xiaolong",
        "Learning Continuous Image Representation with Local Implicit Image Function",
        2021, "2012.09161",
        proceedings="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    ),
    Paper(
        "Liu, Wenlong and Yang, Tianyu and Wang, Yuhan and Yu, Qizhi and Zhang, Lei",
        "Symbol as Points: Panoptic Symbol Spotting via Point-based Representation",
        2024, "2401.10556", proceedings=_ICLR,
    ),
    Paper(
        "Tan, Shawn and Yang, Songlin and Courville, Aaron and Panda, Rameswar and Shen, Yikang",
        "Scaling Stick-Breaking Attention: An Efficient Implementation and In-depth Study",
        2025, "2410.17980", proceedings=_ICLR,
    ),
    Paper(
        "Vasylenko, Pavlo and Pitorro, Hugo and Martins, André F. T. and Treviso, Marcos",
        "Long-Context Generalization with Sparse Attention",
        2026, "2506.16640", proceedings=_ICLR,
    ),
    Paper(
        "Leviathan, Yaniv and Kalman, Matan and Matias, Yossi",
        "Selective Attention Improves Transformer", 2025, "2410.02703", proceedings=_ICLR,
    ),
    Paper(
        "Arora, Simran and Eyuboglu, Sabri and Zhang, Michael and Timalsina, Aman and "
        "Alberti, Silas and Zinsley, Dylan and Zou, James and Rudra, Atri and Ré, Christopher",
        "Simple linear attention language models balance the recall-throughput tradeoff",
        2024, "2402.18668", proceedings=_ICML,
    ),
    Paper(
        "Wang, Sinong and Li, Belinda Z. and Khabsa, Madian and Fang, Han and Ma, Hao",
        "Linformer: Self-Attention with Linear Complexity", 2020, "2006.04768",
    ),
    Paper(
        "Kitaev, Nikita and Kaiser, Łukasz and Levskaya, Anselm",
        "Reformer: The Efficient Transformer", 2020, "2001.04451", proceedings=_ICLR,
    ),
    Paper(
        "Yang, Songlin and Shen, Yikang and Wen, Kaiyue and Tan, Shawn and Mishra, Mayank and "
        "Ren, Liliang and Panda, Rameswar and Kim, Yoon",
        "PaTH Attention: Position Encoding via Accumulating Householder Transformations",
        2025, "2505.16381", proceedings=_NEURIPS,
    ),
    Paper(
        "Xiao, Guangxuan and Tian, Yuandong and Chen, Beidi and Han, Song and Lewis, Mike",
        "Efficient Streaming Language Models with Attention Sinks", 2024, "2309.17453",
        proceedings=_ICLR,
    ),
    Paper(
        "Lu, Enzhe and Jiang, Zhejun and Liu, Jingyuan and Du, Yulun and Jiang, Tao and Hong, Chao "
        "and Liu, Shaowei and He, Weiran and Yuan, Enming and Wang, Yuzhi and Huang, Zhiqi and "
        "Yuan, Huan and Xu, Suting and Xu, Xinran and Lai, Guokun and Chen, Yanru and "
        "Zheng, Huabin and Yan, Junjie and Su, Jianlin and Wu, Yuxin and Zhang, Neo Y. and "
        "Yang, Zhilin and Zhou, Xinyu and Zhang, Mingxing and Qiu, Jiezhong",
        "MoBA: Mixture of Block Attention for Long-Context LLMs", 2025, "2502.13189",
    ),
    Paper(
        "Yuan, Jingyang and Gao, Huazuo and Dai, Damai and Luo, Junyu and Zhao, Liang and "
        "Zhang, Zhengyan and Xie, Zhenda and Wei, Y. X. and Wang, Lean and Xiao, Zhiping and "
        "Wang, Yuqing and Ruan, Chong and Zhang, Ming and Liang, Wenfeng and Zeng, Wangding",
        "Native Sparse Attention: Hardware-Aligned and Natively Trainable Sparse Attention",
        2025, "2502.11089",
    ),
    Paper(
        "DeepSeek-AI", "DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models",
        2025, "2512.02556",
    ),
    Paper(
        "Zhao, Weilin and Zhou, Zihan and Su, Zhou and Xiao, Chaojun and Li, Yuxuan and "
        "Li, Yanghao and Zhang, Yudi and Zhao, Weilun and Li, Zhen and Huang, Yuxiang and "
        "Sun, Ao and Han, Xu and Liu, Zhiyuan",
        "InfLLM-V2: Dense-Sparse Switchable Attention for Seamless Short-to-Long Adaptation",
        2025, "2509.24663",
    ),
    Paper(
        "Beltagy, Iz and Peters, Matthew E. and Cohan, Arman",
        "Longformer: The Long-Document Transformer", 2020, "2004.05150",
    ),
    Paper(
        "Zaheer, Manzil and Guruganesh, Guru and Dubey, Kumar Avinava and Ainslie, Joshua and "
        "Alberti, Chris and Ontanon, Santiago and Pham, Philip and Ravula, Anirudh and "
        "Wang, Qifan and Yang, Li and Ahmed, Amr",
        "Big Bird: Transformers for Longer Sequences", 2020, "2007.14062", proceedings=_NEURIPS,
    ),
)  # fmt: skip
