"""The paper and nothing else: backbone, flow, mapper, anomaly map, image scores, calibration.

Pure torch, timm and FrEIA. No Ray, no MLflow. Equation and section numbers refer to "A Normalizing
Flow-Based Bidirectional Mapping Residual Network for Unsupervised Defect Detection" (2024).
"""
